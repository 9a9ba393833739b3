//! Series of requests: how many, with what kind of status, and how long until the answer was there.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec};

use super::{Register, SECONDS};

/// The route of requests that have none.
pub const NO_ROUTE: &str = "(none)";

/// The kinds of status, as label.
const CODES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The families, of both listeners.
pub(super) struct Families {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Families {
    pub(super) fn new(r: &Register<'_>) -> Result<Self, prometheus::Error> {
        let labels = ["listener", "route", "code"];
        let seconds = HistogramOpts::new(
            "footfall_http_request_duration_seconds",
            "Time from a request's head until its answer was there, by listener and route.",
        );
        Ok(Families {
            requests: r.counters("footfall_http_requests_total", "Requests answered.", &labels)?,
            seconds: r.add(HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["listener", "route"])?)?,
        })
    }

    /// The series of a listener, whose routes stand in this order.
    pub(super) fn of(&self, listener: &str, routes: impl Iterator<Item = &'static str>) -> Requests {
        let of_route = |route: &str| OfRoute {
            codes: CODES.map(|code| self.requests.with_label_values(&[listener, route, code])),
            seconds: self.seconds.with_label_values(&[listener, route]),
        };
        Requests(routes.chain([NO_ROUTE]).map(of_route).collect())
    }
}

/// The series of a listener's requests, by place of the route in its table; the last is [`NO_ROUTE`].
pub struct Requests(Vec<OfRoute>);

struct OfRoute {
    codes: [IntCounter; CODES.len()],
    seconds: Histogram,
}

impl Requests {
    /// Counts an answer.
    pub fn answered(&self, route: usize, status: u16, took: Duration) {
        let Some(series) = self.0.get(route) else { return };
        if let Some(count) = series.codes.get(usize::from(status / 100).wrapping_sub(2)) {
            count.inc();
        }
        series.seconds.observe(took.as_secs_f64());
    }
}
