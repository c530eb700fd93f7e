//! A browser as far as sign-in needs one: cookies per origin, redirects by hand, the provider's forms. It reaches the
//! product under its public origin, and that through the gateway alone. Knows no check.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use gatehouse_tests::{
    http::{Message, Request, exchange},
    world::MARK,
};

use super::{ORIGIN, Stage};

/// The session's cookie.
pub const SESSION: &str = "__Host-gatehouse";
/// The cookie that binds a sign-in to its browser.
pub const LOGIN: &str = "__Host-gatehouse-login";

pub struct Browser {
    gateway: SocketAddr,
    /// By origin, then by name.
    jars: BTreeMap<String, BTreeMap<String, String>>,
    /// By which the upstream is asked what it saw of the last hop to our origin.
    pub mark: String,
}

impl Browser {
    pub fn of(stage: &Stage) -> Self {
        Self { gateway: stage.world.gateway, jars: BTreeMap::new(), mark: String::new() }
    }

    /// A request of a page: cookies go with it and come back. A form makes it a POST.
    pub fn go(&mut self, url: &str, form: Option<&str>) -> Result<Message> {
        let (origin, path) = split(url)?;
        let method = if form.is_some() { "POST" } else { "GET" };
        let mut request = self.request(origin, method, path);
        if form.is_some() {
            request = request.header("Content-Type", "application/x-www-form-urlencoded");
        }
        let answer = self.send(origin, request, form.unwrap_or_default())?;
        let jar = self.jars.entry(origin.to_owned()).or_default();
        for cookie in answer.headers.all("set-cookie") {
            let pair = cookie.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').context("a cookie without a value")?;
            if value.is_empty() {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(answer)
    }

    /// A call that a script makes to our origin, with these headers.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Message> {
        let mut request = self.request(ORIGIN, method, path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header("Content-Type", "application/json");
        }
        self.send(ORIGIN, request, body)
    }

    fn request(&mut self, origin: &str, method: &str, path: &str) -> Request {
        let host = origin.split("://").last().unwrap_or_default();
        let mut request = Request::new(method, path).without("Host").header("Host", host);
        if origin == ORIGIN {
            self.mark = uuid::Uuid::new_v4().to_string();
            request = request.header(MARK, &self.mark);
        } else {
            request = request.header("Connection", "close");
        }
        let jar = self.jars.get(origin).into_iter().flatten();
        let cookies: Vec<String> = jar.map(|(name, value)| format!("{name}={value}")).collect();
        if cookies.is_empty() { request } else { request.header("Cookie", &cookies.join("; ")) }
    }

    fn send(&self, origin: &str, request: Request, body: &str) -> Result<Message> {
        let to = if origin == ORIGIN {
            self.gateway
        } else {
            origin.strip_prefix("http://").context("a provider elsewhere")?.parse()?
        };
        let length = body.len().to_string();
        let mut bytes = request.header("Content-Length", &length).bytes();
        bytes.extend_from_slice(body.as_bytes());
        exchange(to, &bytes).with_context(|| format!("{origin} {body}"))
    }

    /// Begins a sign-in: the provider's address to which the browser is sent.
    pub fn begin(&mut self, stage: &Stage) -> Result<String> {
        let url = format!("{ORIGIN}/oauth2/login?issuer={}&return_to=/app", stage.issuer);
        let begun = self.go(&url, None)?;
        ensure!(begun.status()? == 303, "{begun:?}");
        Ok(begun.header("location"))
    }

    /// From the provider's authorization endpoint through its forms, as `login`: the address with which the provider
    /// sends the browser back, not yet visited.
    pub fn through_provider(&mut self, url: &str, login: &str) -> Result<String> {
        let mut url = url.to_owned();
        for _ in 0..12 {
            let mut answer = self.go(&url, None)?;
            if answer.status()? == 200 {
                let page = String::from_utf8_lossy(&answer.body).into_owned();
                let between = |before: &str| {
                    let (_, rest) = page.split_once(before)?;
                    rest.split('"').next()
                };
                let action = between("action=\"").context("no form")?;
                let prompt = between("name=\"prompt\" value=\"").context("no prompt")?;
                let form = format!("prompt={prompt}&login={login}&password=any");
                answer = self.go(action, Some(&form))?;
            }
            let place = answer.headers.one("location").with_context(|| format!("{answer:?}"))?;
            url = match place.starts_with('/') {
                true => format!("{}{place}", split(&url)?.0),
                false => place,
            };
            if url.starts_with(ORIGIN) {
                return Ok(url);
            }
        }
        anyhow::bail!("the provider does not send the browser back")
    }

    /// Signs in: the answer to what the provider sent.
    pub fn sign_in(&mut self, stage: &Stage, login: &str) -> Result<Message> {
        let place = self.begin(stage)?;
        let back = self.through_provider(&place, login)?;
        self.go(&back, None)
    }

    /// What a cookie of our origin holds.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.jars.get(ORIGIN)?.get(name).map(String::as_str)
    }

    pub fn set_cookie(&mut self, name: &str, value: &str) {
        let jar = self.jars.entry(ORIGIN.to_owned()).or_default();
        jar.insert(name.to_owned(), value.to_owned());
    }
}

/// Scheme, host and port, and what follows.
fn split(url: &str) -> Result<(&str, &str)> {
    let start = url.find("://").context("no scheme")? + 3;
    let end = url.get(start..).and_then(|rest| rest.find('/')).context("no path")?;
    url.split_at_checked(start + end).context("no origin")
}
