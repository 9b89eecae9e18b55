//! The counters and histograms of `/metrics`, in Prometheus' text format.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::times::Times;

/// All counters, and the registry that writes them out.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram>,
    stages: Family<StageLabels, Histogram>,
    batch: Histogram,
    inputs: Counter,
    label_sets: Family<CacheLabels, Counter>,
    queue: Gauge,
    in_flight: Gauge,
    connections: Gauge,
    connections_dropped: Counter,
    connections_refused: Counter,
    pairs: Gauge,
    generation: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    /// `ok`, or the error's code.
    outcome: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    found: &'static str,
}

/// 0.1 ms to 26 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 2.0, 19))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("xmore"),
            requests: Family::default(),
            latency: Family::new_with_constructor(seconds as fn() -> Histogram),
            stages: Family::new_with_constructor(seconds as fn() -> Histogram),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            inputs: Counter::default(),
            label_sets: Family::default(),
            queue: Gauge::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_dropped: Counter::default(),
            connections_refused: Counter::default(),
            pairs: Gauge::default(),
            generation: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "requests",
            "Answered requests by route, outcome (ok or the error's code) and HTTP status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "request",
            "Time from a request's head to its answer",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register_with_unit(
            "stage",
            "Time of a batch in each stage: queue (its oldest input's wait), decode, encode, search, ensemble",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        registry.register("batch_inputs", "Images and texts of a batch", metrics.batch.clone());
        registry.register("inputs", "Images and texts of all batches", metrics.inputs.clone());
        registry.register(
            "label_set_lookups",
            "Label sets asked for, by whether their embeddings were there",
            metrics.label_sets.clone(),
        );
        registry.register(
            "queue_depth",
            "Images and texts that wait for the next batch",
            metrics.queue.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests that are not answered yet",
            metrics.in_flight.clone(),
        );
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register(
            "connections_dropped",
            "Connections without a request, or stalled, that were closed for new ones",
            metrics.connections_dropped.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections that were refused",
            metrics.connections_refused.clone(),
        );
        registry.register("memory_pairs", "Pairs of the memory, as far as is known", metrics.pairs.clone());
        registry.register("memory_generation", "Openings of the memory", metrics.generation.clone());
        metrics
    }

    /// A request was answered.
    pub(crate) fn request(&self, route: &str, outcome: &str, status: u16, time: Duration) {
        let (route, outcome) = (route.to_owned(), outcome.to_owned());
        self.latency.get_or_create(&RouteLabels { route: route.clone() }).observe(time.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route, outcome, status }).inc();
    }

    /// A batch was run.
    pub(crate) fn batch(&self, inputs: usize, times: &Times) {
        self.batch.observe(inputs as f64);
        self.inputs.inc_by(inputs as u64);
        for (stage, time) in [
            ("queue", times.queue),
            ("decode", times.decode),
            ("encode", times.encode),
            ("search", times.search),
            ("ensemble", times.ensemble),
        ] {
            self.stages.get_or_create(&StageLabels { stage }).observe(time.as_secs_f64());
        }
    }

    /// A label set was asked for.
    pub(crate) fn label_set(&self, found: bool) {
        let found = if found { "yes" } else { "no" };
        self.label_sets.get_or_create(&CacheLabels { found }).inc();
    }

    /// A request begins; it ends when the guard is dropped.
    pub(crate) fn begin_request(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// A connection is opened; it is closed when the guard is dropped.
    pub(crate) fn begin_connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// A connection was evicted for another.
    pub(crate) fn connection_dropped(&self) {
        self.connections_dropped.inc();
    }

    /// A connection was refused.
    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Everything as text, with the current values of gauges that others keep.
    pub(crate) fn text(&self, queue: usize, pairs: u64, generation: u64) -> String {
        self.queue.set(queue as i64);
        self.pairs.set(i64::try_from(pairs).unwrap_or(i64::MAX));
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(error) => format!("# {error}\n"),
        }
    }
}

/// Something that is there now.
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_counted() {
        let metrics = Metrics::new();
        metrics.request("/v1/classify", "ok", 200, Duration::from_millis(3));
        metrics.request("/v1/classify", "overloaded", 429, Duration::from_micros(30));
        metrics.batch(7, &Times { encode: Duration::from_millis(20), ..Times::default() });
        let running = metrics.begin_request();
        let text = metrics.text(5, 40_455, 2);
        for line in [
            r#"xmore_requests_total{route="/v1/classify",outcome="ok",status="200"} 1"#,
            r#"xmore_requests_total{route="/v1/classify",outcome="overloaded",status="429"} 1"#,
            r#"xmore_stage_seconds_count{stage="encode"} 1"#,
            "xmore_queue_depth 5",
            "xmore_requests_in_flight 1",
            "xmore_memory_pairs 40455",
            "xmore_inputs_total 7",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        drop(running);
        assert!(metrics.text(0, 0, 2).contains("xmore_requests_in_flight 0"));
    }
}
