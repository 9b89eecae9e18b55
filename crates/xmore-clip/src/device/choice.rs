//! Which device a model computes on.

use std::fmt;
use std::str::FromStr;

use xmore_cuda::{CudaError, Device};

use super::cpu::Cpu;
use super::cuda::Cuda;
use super::{Device as _, Operation};
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;
use crate::options::LoadOptions;

/// Least compute capability of a GPU that is taken where none is named: kernels have instructions of Ampere.
const AUTO_CAPABILITY: (u32, u32) = (8, 0);

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

/// What decodes image files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoding {
    /// The processor: pixels are those of Pillow.
    #[default]
    Cpu,
    /// The GPU that computes: it decodes JPEG files by nvJPEG, whose pixels differ a little, and resizes them. Files that it does not decode are the
    /// processor's.
    Gpu,
}

impl DeviceChoice {
    /// The chosen GPU, ready for use; none for the processor. An encoder and the search of a memory may share it.
    ///
    /// # Errors
    /// [`ClipError::Device`] if a GPU is named that cannot be used, or if the one of [`DeviceChoice::Auto`] fails; that there is none is no error of
    /// [`DeviceChoice::Auto`].
    pub fn gpu(self) -> Result<Option<Device>> {
        let absent = |error: &CudaError| {
            matches!(error, CudaError::NoDriver | CudaError::NoDevice { .. } | CudaError::NoLibrary { .. })
        };
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(ordinal) => Ok(Some(Device::open(ordinal)?)),
            Self::Auto => match Device::open(0) {
                Ok(gpu) => Ok((gpu.info().capability >= AUTO_CAPABILITY).then_some(gpu)),
                Err(error) if absent(&error) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }
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
    /// Opens the chosen device for a model of these operations.
    ///
    /// # Errors
    /// [`ClipError::NotOnGpu`] if a GPU is named that lacks an operation; [`ClipError::Device`] if a GPU is named that cannot be used; [`ClipError::Precision`] if the device does not compute in the precision;
    /// [`ClipError::Decoding`] if a GPU is to decode image files, but the device is none.
    pub(crate) fn open(options: &LoadOptions, operations: &[Operation]) -> Result<Self> {
        let place = Self::of(options.device, options.precision, operations)?;
        match place {
            Self::Cpu(_) if options.decoding == Decoding::Gpu => Err(ClipError::Decoding),
            place => Ok(place),
        }
    }

    fn of(choice: DeviceChoice, precision: Precision, operations: &[Operation]) -> Result<Self> {
        let cpu = || Cpu::new(precision).map(Self::Cpu);
        let Some(gpu) = choice.gpu()? else { return cpu() };
        let cuda = Cuda::new(gpu, precision).and_then(|cuda| {
            cuda.require(operations.iter().copied())?;
            Ok(cuda)
        });
        match cuda {
            // 8-bit integers and some operations are the processor's alone.
            Err(ClipError::Precision { .. } | ClipError::NotOnGpu { .. }) if choice == DeviceChoice::Auto => {
                cpu()
            }
            cuda => cuda.map(Self::Cuda),
        }
    }

    /// Name of the GPU, if it is one.
    pub(crate) fn gpu_name(&self) -> Option<String> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(cuda) => Some(cuda.name()),
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

    #[test]
    fn only_a_gpu_that_is_named_has_to_be_there() {
        assert!(DeviceChoice::Cpu.gpu().unwrap().is_none());
        assert!(DeviceChoice::Auto.gpu().is_ok());
        assert!(matches!(DeviceChoice::Cuda(99).gpu(), Err(ClipError::Device(_))));
    }
}
