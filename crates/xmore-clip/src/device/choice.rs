//! Which device a model computes on.

use std::fmt;
use std::str::FromStr;

use xmore_cuda::CudaError;

use crate::error::{ClipError, Result};

use super::cpu::Cpu;
use super::cuda::Cuda;
use crate::nn::precision::Precision;

/// Which device a model computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// This machine's processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU where there is one that can be used, else the processor.
    Auto,
    /// An NVIDIA GPU, by the driver's number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.parse().map(Self::Cuda);
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            "cuda" | "gpu" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .ok_or(())
                .and_then(|n| number(n).map_err(|_| ()))
                .map_err(|()| "expected auto, cpu, cuda, or cuda:N".to_owned()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Auto => f.write_str("auto"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// A device that is ready.
#[derive(Clone)]
pub(crate) enum Place {
    Cpu(Cpu),
    Cuda(Cuda),
}

impl Place {
    /// Opens the chosen device for numbers of a precision.
    ///
    /// # Errors
    /// [`ClipError::Device`] if a GPU is named that cannot be used; [`ClipError::Precision`] if the device does not compute in the precision.
    pub(crate) fn open(choice: DeviceChoice, precision: Precision) -> Result<Self> {
        let cpu = || Cpu::new(precision).map(Self::Cpu);
        match choice {
            DeviceChoice::Cpu => cpu(),
            DeviceChoice::Cuda(ordinal) => Cuda::open(ordinal, precision).map(Self::Cuda),
            DeviceChoice::Auto => match Cuda::open(0, precision) {
                Ok(cuda) => Ok(Self::Cuda(cuda)),
                // 8-bit integers are the processor's alone.
                Err(ClipError::Precision { .. }) => cpu(),
                Err(ClipError::Device(
                    CudaError::NoDriver | CudaError::NoDevice { .. } | CudaError::NoLibrary { .. },
                )) => cpu(),
                Err(other) => Err(other),
            },
        }
    }

    /// What it is, for people: `cpu`, or a GPU's name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Cpu(_) => "cpu".to_owned(),
            Self::Cuda(cuda) => cuda.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, choice) in
            [("cpu", DeviceChoice::Cpu), ("auto", DeviceChoice::Auto), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["", "cuda:", "cuda:x", "tpu", "cuda:-1"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
