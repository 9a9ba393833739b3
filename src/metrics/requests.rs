//! Series of requests: how many, with what kind of status, and how long until the answer was there.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::Register;

/// The route of requests that have none.
pub const NO_ROUTE: &str = "(none)";

/// The kinds of status, as label.
const CODES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The families, of both listeners.
pub(super) struct RequestFamilies {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl RequestFamilies {
    pub(super) fn new(r: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(RequestFamilies {
            requests: r.counters(
                "footfall_http_requests_total",
                &["listener", "route", "code"],
                "Requests answered.",
            )?,
            seconds: r.seconds_by(
                "footfall_http_request_duration_seconds",
                &["listener", "route"],
                "Time from a request's head until its answer was there, by listener and route.",
            )?,
        })
    }

    /// The series of a listener, with its routes in this order.
    pub(super) fn of(&self, listener: &str, routes: impl Iterator<Item = &'static str>) -> Requests {
        let series = |route: &str| RouteSeries {
            codes: CODES.map(|code| self.requests.with_label_values(&[listener, route, code])),
            seconds: self.seconds.with_label_values(&[listener, route]),
        };
        Requests(routes.chain([NO_ROUTE]).map(series).collect())
    }
}

/// The series of a listener's requests, by place of the route in its table; the last is [`NO_ROUTE`].
pub struct Requests(Vec<RouteSeries>);

struct RouteSeries {
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
