//! An OpenAPI document as one page of HTML. Everything from the document is escaped. Knows nothing of this API.

use serde_json::Value;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884}\
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem}\
nav ul{columns:3 18rem;padding-left:1rem}\
code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;border:1px solid var(--line);padding:.5rem}\
section{border-top:1px solid var(--line);margin-top:1.5rem}\
.verb{display:inline-block;min-width:4.5rem;font-weight:700}\
table{border-collapse:collapse}td,th{text-align:left;padding:.1rem .8rem .1rem 0;vertical-align:top}";

/// The page.
pub fn page(document: &Value) -> String {
    let mut html = String::new();
    let title = text(at(document, "/info/title"));
    push(
        &mut html,
        format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1><p>{}</p>",
            text(at(document, "/info/summary"))
        ),
    );
    for paragraph in at(document, "/info/description").as_str().unwrap_or_default().split("\n\n") {
        push(&mut html, format_args!("<p>{}</p>", marked(paragraph)));
    }
    html.push_str("<p>The same for programs: <a href=\"openapi.json\">openapi.json</a>.</p><nav>");
    for tag in at(document, "/tags").as_array().into_iter().flatten() {
        let name = at(tag, "/name").as_str().unwrap_or_default();
        push(
            &mut html,
            format_args!("<h2>{}</h2><p>{}</p><ul>", escape(name), text(at(tag, "/description"))),
        );
        for (path, method, operation) in operations(document) {
            if at(operation, "/tags/0") == name {
                push(
                    &mut html,
                    format_args!(
                        "<li><a href=\"#{}\">{} <code>{}</code></a></li>",
                        text(at(operation, "/operationId")),
                        escape(&method.to_uppercase()),
                        escape(path)
                    ),
                );
            }
        }
        html.push_str("</ul>");
    }
    html.push_str("</nav>");
    for (path, method, operation) in operations(document) {
        one(&mut html, document, (path, method), operation);
    }
    html.push_str("<h2>Schemas</h2>");
    for (name, schema) in at(document, "/components/schemas").as_object().into_iter().flatten() {
        push(
            &mut html,
            format_args!(
                "<section id=\"schema-{0}\"><h3>{0}</h3><pre>{1}</pre></section>",
                escape(name),
                escape(&format!("{schema:#}"))
            ),
        );
    }
    html.push_str("</body></html>");
    html
}

fn one(html: &mut String, document: &Value, (path, method): (&str, &str), operation: &Value) {
    push(
        html,
        format_args!(
            "<section id=\"{}\"><h3><span class=\"verb\">{}</span> <code>{}</code></h3><p>{}.</p>",
            text(at(operation, "/operationId")),
            escape(&method.to_uppercase()),
            escape(path),
            text(at(operation, "/summary"))
        ),
    );
    match at(operation, "/x-gatehouse-permission").as_str() {
        Some(permission) => {
            push(html, format_args!("<p>Needs <code>{}</code>.</p>", escape(permission)));
        }
        None => html.push_str("<p>Needs no credential.</p>"),
    }
    let parameters = at(operation, "/parameters").as_array().into_iter().flatten();
    let parameters: Vec<&Value> = parameters.map(|one| followed(document, one)).collect();
    if !parameters.is_empty() {
        html.push_str("<table><tr><th>Parameter</th><th>In</th><th></th></tr>");
        for one in parameters {
            let required = if at(one, "/required") == true { " (required)" } else { "" };
            push(
                html,
                format_args!(
                    "<tr><td><code>{}</code></td><td>{}{required}</td><td>{}</td></tr>",
                    text(at(one, "/name")),
                    text(at(one, "/in")),
                    marked(at(one, "/description").as_str().unwrap_or_default())
                ),
            );
        }
        html.push_str("</table>");
    }
    for (kind, media) in at(operation, "/requestBody/content").as_object().into_iter().flatten() {
        push(
            html,
            format_args!(
                "<p>Takes <code>{}</code>{}.</p>",
                escape(kind),
                linked(at(media, "/schema"))
            ),
        );
        let named = followed(document, at(media, "/schema"));
        if let Some(example) = named.pointer("/examples/0") {
            push(html, format_args!("<pre>{}</pre>", escape(&format!("{example:#}"))));
        }
    }
    html.push_str("<table><tr><th>Status</th><th></th></tr>");
    for (status, response) in at(operation, "/responses").as_object().into_iter().flatten() {
        let response = followed(document, response);
        let schema =
            at(response, "/content").as_object().and_then(|content| content.values().next());
        let of = schema.map(|media| linked(at(media, "/schema"))).unwrap_or_default();
        push(
            html,
            format_args!(
                "<tr><td>{}</td><td>{}{of}</td></tr>",
                escape(status),
                marked(at(response, "/description").as_str().unwrap_or_default())
            ),
        );
    }
    html.push_str("</table></section>");
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = at(document, "/paths").as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let item = item.as_object().into_iter().flatten();
        item.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Where a reference leads, or the value itself.
fn followed<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let to = at(value, "/$ref").as_str().and_then(|to| to.strip_prefix('#'));
    to.and_then(|to| document.pointer(to)).unwrap_or(value)
}

fn linked(schema: &Value) -> String {
    let items = at(schema, "/properties/items/items");
    let (before, to) = match (at(schema, "/$ref"), at(items, "/$ref")) {
        (Value::String(to), _) => (" ", to),
        (_, Value::String(to)) => (" a page of ", to),
        _ => return String::new(),
    };
    let name = escape(to.rsplit('/').next().unwrap_or_default());
    format!("{before}<a href=\"#schema-{name}\">{name}</a>")
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

/// Escaped, with `code` between backticks.
fn marked(source: &str) -> String {
    let parts = source.split('`').enumerate();
    parts.fold(String::new(), |mut html, (place, part)| {
        if place % 2 == 1 {
            push(&mut html, format_args!("<code>{}</code>", escape(part)));
        } else {
            html.push_str(&escape(part));
        }
        html
    })
}

fn escape(source: &str) -> String {
    source.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(html: &mut String, part: std::fmt::Arguments<'_>) {
    html.push_str(&part.to_string());
}

/// What is at a pointer, or null.
fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    value.pointer(pointer).unwrap_or(&NULL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_in_the_document_is_text_and_nothing_else() {
        let evil = "<script>alert(1)</script>\"'&";
        let document = json!({
            "info": {"title": evil, "summary": evil, "description": format!("{evil} `{evil}`")},
            "tags": [{"name": evil, "description": evil}],
            "paths": {evil: {"get": {"operationId": evil, "summary": evil, "tags": [evil],
                "responses": {evil: {"description": evil}}}}},
            "components": {"schemas": {evil: {"description": evil}}},
        });
        let page = page(&document);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }
}
