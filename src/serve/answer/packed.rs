//! Bodies in fewer bytes, for askers that read them so.

use std::io::Write;

use hyper::header::HeaderValue;

/// Whether an asker names a coding that it takes (RFC 9110, 12.5.3).
pub fn takes(accepted: Option<&HeaderValue>, coding: &str) -> bool {
    let list = accepted.and_then(|accepted| accepted.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    list.split(',').any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        name.trim() == coding && !refused
    })
}

pub fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let room = Vec::with_capacity(body.len() / 4);
    let mut packer = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
    packer.write_all(body).ok()?;
    packer.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_what() {
        for (accepted, gzip, br) in [
            (None, false, false),
            (Some(""), false, false),
            (Some("gzip, deflate, br, zstd"), true, true),
            (Some("GZIP;q=0.5"), true, false),
            (Some("deflate , br;q=1.0,gzip; q=0.001"), true, true),
            (Some("gzip;q=0, br;Q=0.000"), false, false),
            (Some("identity"), false, false),
            (Some("gzip, *;q=0"), true, false),
            (Some("gzipped, xbr"), false, false),
        ] {
            let value = accepted.map(HeaderValue::from_static);
            let found = ["gzip", "br"].map(|coding| takes(value.as_ref(), coding));
            assert_eq!(found, [gzip, br], "{accepted:?}");
        }
    }
}
