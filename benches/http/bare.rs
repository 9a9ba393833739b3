//! What all rows are compared with: a hyper server that reads the body and answers, and does nothing else.

use std::convert::Infallible;
use std::io::Read;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Fault;

/// Serves on a free port of the loopback, which it prints, until its standard input ends (so it does
/// not outlive the client). GET, and a beacon that asks for the counters, are answered with 200 and a body of `body` bytes,
/// everything else with 204.
pub async fn serve(body: usize) -> Result<(), Fault> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let body = Bytes::from(vec![b' '; body]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        let service = service_fn(move |request| answer(request, body.clone()));
        tokio::spawn(async move {
            // A client that goes away is not a failure of the server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// One answer.
async fn answer(request: Request<Incoming>, body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let reads = request.method() == Method::GET;
    let said = request.into_body().collect().await.map(|said| said.to_bytes()).unwrap_or_default();
    let reads = reads || said.ends_with(br#""answer":"counters"}"#);
    let mut response = Response::new(Full::new(Bytes::new()));
    if reads {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *response.body_mut() = Full::new(body);
    } else {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(response)
}
