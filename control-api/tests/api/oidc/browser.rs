//! A browser as far as sign-in needs one: cookies per host, redirects by hand, the provider's forms. It reaches the
//! service under its public origin. Knows no test.

use std::collections::BTreeMap;

use super::ORIGIN;
use crate::{
    http::{Answer, send},
    world::World,
};

#[derive(Default)]
pub struct Browser {
    /// By origin, then by name.
    jars: BTreeMap<String, BTreeMap<String, String>>,
}

impl Browser {
    /// One request; cookies go with it and come back. A form makes it a POST.
    pub fn go(&mut self, world: &World, url: &str, form: Option<&str>) -> Answer {
        let end = url.find("://").map(|at| at + 3).unwrap();
        let slash = url[end..].find('/').map_or(url.len(), |at| end + at);
        let (origin, path) = url.split_at(slash);
        let real = if origin == ORIGIN { world.service.url.as_str() } else { origin };
        let jar = self.jars.entry(origin.to_owned()).or_default();
        let cookies: Vec<String> =
            jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = Vec::new();
        if !cookies.is_empty() {
            headers.push(("cookie", cookies.as_str()));
        }
        if form.is_some() {
            headers.push(("content-type", "application/x-www-form-urlencoded"));
        }
        let method = if form.is_some() { "POST" } else { "GET" };
        let answer = send(method, &format!("{real}{path}"), &headers, form);
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Begins a sign-in and goes through the provider's forms as `login`: the address with which the provider sends the
    /// browser back, not yet visited.
    pub fn through_provider(&mut self, world: &World, issuer: &str, login: &str) -> String {
        let begin = format!("{ORIGIN}/oauth2/login?issuer={issuer}&return_to=/app");
        let begun = self.go(world, &begin, None);
        assert_eq!(begun.status, 303, "{}", begun.text);
        self.follow(world, begun.header("location").unwrap(), login)
    }

    /// From the provider's authorization endpoint to the address with which it sends the browser back.
    pub fn follow(&mut self, world: &World, url: &str, login: &str) -> String {
        let mut url = url.to_owned();
        for _ in 0..12 {
            let origin = url[..url[8..].find('/').unwrap() + 8].to_owned();
            let mut answer = self.go(world, &url, None);
            if answer.status == 200 {
                let between = |text: &str, before: &str| {
                    let at = text.find(before).unwrap_or_else(|| panic!("no form: {text}"));
                    let rest = &text[at + before.len()..];
                    rest[..rest.find('"').unwrap()].to_owned()
                };
                let action = between(&answer.text, "action=\"");
                let prompt = between(&answer.text, "name=\"prompt\" value=\"");
                let form = format!("prompt={prompt}&login={login}&password=any");
                answer = self.go(world, &action, Some(&form));
            }
            let place = answer.header("location").unwrap_or_else(|| panic!("{}", answer.text));
            url =
                if place.starts_with('/') { format!("{origin}{place}") } else { place.to_owned() };
            if url.starts_with(ORIGIN) {
                return url;
            }
        }
        panic!("the provider does not come back");
    }

    /// Signs in: the service's answer to what the provider sent.
    pub fn sign_in(&mut self, world: &World, issuer: &str, login: &str) -> Answer {
        let back = self.through_provider(world, issuer, login);
        self.go(world, &back, None)
    }

    /// The session's cookie.
    pub fn session(&self) -> Option<&str> {
        self.cookie("__Host-gatehouse")
    }

    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.jars.get(ORIGIN)?.get(name).map(String::as_str)
    }

    pub fn set_cookie(&mut self, name: &str, value: &str) {
        let jar = self.jars.entry(ORIGIN.to_owned()).or_default();
        jar.insert(name.to_owned(), value.to_owned());
    }

    /// A call of the API with the session and these headers.
    pub fn call(
        &self,
        world: &World,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let cookie = format!("__Host-gatehouse={}", self.session().unwrap_or_default());
        let mut all = vec![("cookie", cookie.as_str())];
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        all.extend_from_slice(headers);
        send(method, &format!("{}{path}", world.service.url), &all, body)
    }

    pub fn get(&self, world: &World, path: &str) -> Answer {
        self.call(world, "GET", path, &[], None)
    }
}
