//! A headless Chromium driven over WebDriver (W3C), as far as the page's tests need it.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, wait_for};

/// Chromium without anything that would look at the network or at a display.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// Whether pages may run scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scripts {
    On,
    Off,
}

/// A browser with one tab; it ends when it is dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Held for as long as the browser runs.
    _profile: TempDir,
}

impl Browser {
    #[track_caller]
    pub(crate) fn start(scripts: Scripts) -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver, of Debian's chromium-driver, is there");
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        let port = port.expect("chromedriver says where it listens");
        // Its later lines go nowhere, and must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        browser.session = browser.open_session(scripts);
        browser
    }

    fn open_session(&self, scripts: Scripts) -> String {
        let profile = format!("--user-data-dir={}", self._profile.path().display());
        let mut arguments: Vec<&str> = ARGUMENTS.to_vec();
        arguments.extend([profile.as_str(), "--window-size=1200,1000"]);
        let mut options = json!({ "args": arguments });
        if scripts == Scripts::Off {
            options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
        }
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let answer = self.command("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        answer["sessionId"].as_str().expect("a session").to_owned()
    }

    /// Loads a page.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "url", &json!({ "url": url }));
    }

    /// The title in the tab.
    #[track_caller]
    pub(crate) fn title(&self) -> String {
        self.call("GET", "title", &Value::Null).as_str().expect("a text").to_owned()
    }

    /// The text that a person reads on the page: visible text only, as laid out.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        // The page may be reloaded between the two calls; then the element is gone.
        wait_for("a page that stays for a moment", || {
            // Between two pages there is none.
            let body = json!({ "using": "css selector", "value": "body" });
            let found = self.try_command("POST", &format!("/session/{}/element", self.session), &body).ok()?;
            let element = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
            let path = format!("/session/{}/element/{}/text", self.session, element.expect("a page has a body"));
            self.try_command("GET", &path, &Value::Null).ok()?.as_str().map(str::to_owned)
        })
    }

    /// Waits until a person reads all of this on the page, and gives the page's text.
    #[track_caller]
    pub(crate) fn reads(&self, all: &[&str]) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("the page's text", || {
                last = self.text();
                all.iter().all(|text| last.contains(text)).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("not all of {all:?} is on the page:\n{last}"))
    }

    /// What a script gives back.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.call("POST", "execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Like [`Self::run`], for a script that calls its last argument when it is done.
    #[track_caller]
    pub(crate) fn run_async(&self, script: &str) -> Value {
        self.call("POST", "execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Prefers light or dark pages.
    #[track_caller]
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let parameters = json!({ "features": features });
        self.call("POST", "goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": parameters }));
    }

    /// Gives the window this width, as a phone or a screen has.
    #[track_caller]
    pub(crate) fn resize(&self, width: u32) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.call("POST", "goog/cdp/execute", &command);
    }

    /// A picture of the whole page, as PNG.
    #[track_caller]
    pub(crate) fn picture(&self) -> Vec<u8> {
        let parameters = json!({ "captureBeyondViewport": true });
        let command = json!({ "cmd": "Page.captureScreenshot", "params": parameters });
        let picture = self.call("POST", "goog/cdp/execute", &command);
        BASE64_STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("it is base64")
    }

    /// Types into the field that a selector finds.
    #[track_caller]
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let found = self.call("POST", "element", &json!({ "using": "css selector", "value": selector }));
        let element = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        let path = format!("element/{}/value", element.expect("an element"));
        self.call("POST", &path, &json!({ "text": text }));
    }

    /// Presses a key, given by its code point in WebDriver or as itself.
    #[track_caller]
    pub(crate) fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.call("POST", "actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// What the browser complained about: scripts that failed, and what the page's security policy stopped.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().expect("entries");
        entries.iter().filter(|entry| entry["level"] == "SEVERE").map(|entry| entry["message"].to_string()).collect()
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.command(method, &format!("/session/{}/{path}", self.session), body)
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_command(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_command(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("chromedriver accepts");
        // Chromium itself may take its time on a busy machine.
        stream.set_read_timeout(Some(PATIENCE * 4)).expect("a positive time-out");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", self.port);
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
        let answer = read_body(BufReader::new(stream)).expect("it answers");
        let mut answer: Value = serde_json::from_slice(&answer).expect("it speaks JSON");
        let value = answer["value"].take();
        if value.get("error").is_some() { Err(value) } else { Ok(value) }
    }
}

/// The body of a response: chromedriver tells its length, and may keep the connection.
fn read_body(mut response: impl BufRead) -> io::Result<Vec<u8>> {
    let mut length = 0;
    for line in response.by_ref().lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    response.read_exact(&mut body)?;
    Ok(body)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium with all its processes; without a session there is none.
        let path = format!("/session/{}", self.session);
        let quit = || self.command("DELETE", &path, &Value::Null);
        if !self.session.is_empty() {
            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(quit)));
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
