//! One page by HTTP.
//!
//! Who asks is not trusted: requests have no body, only so many are open at a time, and none for long.

use std::{cell::RefCell, convert::Infallible, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::sink::prometheus;

/// Where the page is.
pub const PATH: &str = "/metrics";
/// Connections at a time; others wait.
const AT_ONCE: usize = 16;
/// How long each may take, for all that it asks: Prometheus opens another one then.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait where no connection can be taken, as without descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers with what `page` returns at that time. Does not end.
pub async fn serve(listener: TcpListener, page: impl FnMut() -> anyhow::Result<String>) {
    let page = RefCell::new(page);
    let answer_now = |request: Request<Incoming>| {
        let answer = answer(&request, &mut *page.borrow_mut());
        async { Ok::<_, Infallible>(answer) }
    };
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < AT_ONCE => match accepted {
                Ok((stream, _)) => open.push(timeout(PATIENCE, talk(stream, answer_now))),
                Err(error) => {
                    log::debug!("no connection: {error}");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = open.next() => {}
        }
    }
}

/// All requests of one connection.
async fn talk<F, A>(stream: TcpStream, answer: F)
where
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Result<Response<Full<Bytes>>, Infallible>>,
{
    let service = service_fn(answer);
    let connection = http1::Builder::new()
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        log::debug!("a connection: {error}");
    }
}

fn answer<B>(
    request: &Request<B>,
    page: &mut impl FnMut() -> anyhow::Result<String>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, format!("only {PATH} is here\n"));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match page() {
        Ok(page) => {
            let mut answer = plain(StatusCode::OK, page);
            let kind = HeaderValue::from_static(prometheus::CONTENT_TYPE);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http_body_util::{BodyExt as _, Empty};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn ask(method: Method, path: &str, page: anyhow::Result<&str>) -> Response<Full<Bytes>> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a path");
        let page = Cell::new(Some(page.map(ToOwned::to_owned)));
        answer(&request, &mut || page.take().expect("asked once"))
    }

    async fn body(answer: Response<Full<Bytes>>) -> Bytes {
        answer.into_body().collect().await.expect("a body").to_bytes()
    }

    #[tokio::test]
    async fn the_page_is_at_its_path() {
        let answer = ask(Method::GET, "/metrics?x=y", Ok("ttmem_processes 0\n"));
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(body(answer).await, "ttmem_processes 0\n");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for path in ["/", "/metrics/", "/metric"] {
            assert_eq!(ask(Method::GET, path, Ok("")).status(), StatusCode::NOT_FOUND, "{path}");
        }
        let refused = ask(Method::POST, PATH, Ok(""));
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }

    #[tokio::test]
    async fn what_fails_is_said() {
        let failed = ask(Method::GET, PATH, Err(anyhow::anyhow!("no table of process 7")));
        assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body(failed).await, "no table of process 7\n");
    }

    /// Asks over a connection of its own, and reads to its end.
    async fn over(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("is answered");
        answer
    }

    #[tokio::test]
    async fn each_asker_gets_the_page_of_now() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("has an address");
        let mut times = 0;
        let page = || {
            times += 1;
            Ok(format!("asked {times}\n"))
        };
        let ask = async {
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            for time in 1..=3 {
                let answer = over(address, request).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                assert!(answer.ends_with(&format!("\r\n\r\nasked {time}\n")), "{answer}");
            }
            let head = over(address, &request.replace("GET", "HEAD")).await;
            assert!(head.ends_with("\r\n\r\n"), "{head}");
            let wrong = over(address, "no HTTP\r\n\r\n").await;
            assert!(wrong.starts_with("HTTP/1.1 400 "), "{wrong}");
        };
        tokio::select! {
            () = ask => {}
            () = serve(listener, page) => unreachable!("it does not end"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_a_place_and_says_nothing_loses_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("has an address");
        let ask = async {
            let mut silent = Vec::new();
            for _ in 0..AT_ONCE {
                silent.push(TcpStream::connect(address).await.expect("connects"));
            }
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            assert!(over(address, request).await.ends_with("\r\n\r\npage\n"));
        };
        tokio::select! {
            () = ask => {}
            () = serve(listener, || Ok("page\n".to_owned())) => unreachable!("it does not end"),
        }
    }
}
