//! A real Prometheus that scrapes services of a test.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::http::encoded;
use crate::support::servers::on_a_free_port;

/// It ends with the test.
pub struct Prometheus {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes admin listeners each second, as job `footfall`, and evaluates files of rules.
    pub fn scraping(targets: &[SocketAddr], rules: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (number, rules) in rules.iter().enumerate() {
            std::fs::write(dir.path().join(format!("rules{number}.yml")), rules).unwrap();
        }
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['rules*.yml']\n\
             scrape_configs:\n- {{job_name: footfall, static_configs: [{{targets: [{}]}}]}}\n",
            targets.join(", ")
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let spawn = |port| {
            Command::new("prometheus")
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
                .spawn()
                .unwrap_or_else(|_| panic!("this test needs prometheus: apt-get install prometheus"))
        };
        match on_a_free_port(spawn, |port| ask(port, "/api/v1/rules").is_some()) {
            Some((child, port)) => Prometheus { child, port, dir },
            None => panic!("Prometheus is not ready: {:?}", std::fs::read_to_string(dir.path().join("log"))),
        }
    }

    fn data(&self, target: &str) -> Result<Value, String> {
        ask(self.port, target).unwrap_or_else(|| panic!("Prometheus is gone:\n{}", self.log()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What a query finds now.
    ///
    /// # Errors
    /// What Prometheus says against the query.
    pub fn query(&self, promql: &str) -> Result<Vec<Value>, String> {
        let data = self.data(&format!("/api/v1/query?query={}", encoded(promql)))?;
        match data["resultType"].as_str() {
            Some("vector") => Ok(data["result"].as_array().cloned().unwrap_or_default()),
            _ => Ok(vec![data["result"].clone()]),
        }
    }

    /// The value of the one series that a query finds.
    pub fn value(&self, promql: &str) -> Option<f64> {
        self.query(promql).ok()?.first()?["value"][1].as_str()?.parse().ok()
    }

    /// All rules: name, query, whether it alerts.
    pub fn rules(&self) -> Vec<(String, String, bool)> {
        let data = self.data("/api/v1/rules").unwrap();
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .map(|rule| (text(&rule, "name"), text(&rule, "query"), rule["type"] == "alerting"))
            .collect()
    }

    /// The alerts that fire now for an instance.
    pub fn firing(&self, instance: SocketAddr) -> BTreeSet<String> {
        let promql = format!("ALERTS{{alertstate=\"firing\", instance=\"{instance}\"}}");
        let found = self.query(&promql).unwrap_or_default();
        found.iter().filter_map(|alert| Some(alert["metric"]["alertname"].as_str()?.to_owned())).collect()
    }
}

/// The `data` of an answer of its API; none while it is not up.
fn ask(port: u16, target: &str) -> Option<Result<Value, String>> {
    // HTTP/1.0: an answer in one piece, to the end of the connection.
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let mut body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    Some(match body["status"].as_str() {
        Some("success") => Ok(body["data"].take()),
        _ => Err(body["error"].to_string()),
    })
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the log of Prometheus:\n{}", self.log());
        }
    }
}
