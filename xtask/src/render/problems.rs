//! `docs/problems.md`: the page that the `type` of every refusal names, with a part for each reason.
//! Knows the page's form; what it says of a reason stands in [`table`], what is the reason's own in the contract.

mod table;

use gatehouse_contract::{Reason, problem::TYPE_BASE};

use self::table::ROWS;

/// What is said of one reason.
struct Row {
    reason: Reason,
    /// Who answers with it.
    from: &'static str,
    /// What it means.
    means: &'static str,
    /// What the client does about it.
    client: &'static str,
    /// What the operator looks at.
    operator: &'static str,
}

const HEAD: &str = "# Problems

Every refusal of the gateway and of the services behind it has a body of the type `application/problem+json` (RFC 9457):

```json
{
  \"type\": \"https://docs.greenlang.ai/problems#quota-exceeded\",
  \"title\": \"The rate limit is used up\",
  \"status\": 429,
  \"instance\": \"urn:request:0191d6b0-7c3e-7aaa-8bbb-0123456789ab\",
  \"code\": \"quota_exceeded\",
  \"request_id\": \"0191d6b0-7c3e-7aaa-8bbb-0123456789ab\"
}
```

| member | what it is |
| --- | --- |
| `type` | names the reason: the part of this page that explains it. Stable: compare it, or `code` |
| `code` | the same reason as one word: in metrics, logs and access logs, too. Stable; a code never changes its meaning |
| `title` | the reason in words, the same for every occurrence |
| `status` | the HTTP status once more |
| `detail` | what happened this time, where more can be said. For people: do not parse it |
| `request_id`, `instance` | this occurrence: the request's `X-Request-ID`, as it is and as a URI. Tell it to support |
| `errors` | of a body that is not taken: at most ten mistakes, each a `pointer` into it (RFC 6901) and a `detail` |

Other members belong to a reason and stand in its part. Of the inside of the system nothing is said, and another tenant's
things are answered like missing ones. 401, 403 and 429 carry `Cache-Control: no-store`. A gRPC or gRPC-Web call gets no body: HTTP
200, the status of the reason's part in `grpc-status` and the title in `grpc-message`. The OAuth 2.0 endpoints (`/oauth2/token`,
`/oauth2/revoke`) answer as RFC 6749 §5.2 says.

What Envoy refuses by itself has the same form and the code that stands for its status: no upstream (503), none in time (504), no
route (404), a head that cannot be read (400), is too large (431) or late (408), too much to do (503). `request_id` and `instance`
stand there where the id is sound. A mesh that has the module without `local_reply_config` (`istio/base`) sends Envoy's plain text.
";

/// The page.
pub fn page() -> String {
    let mut page = format!(
        "<!-- Rendered by `cargo xtask codegen`: change xtask/src/render/problems/table.rs and render again. -->\n{HEAD}"
    );
    page.push_str("\n| code | status | gRPC | title |\n| --- | --- | --- | --- |\n");
    let ordered = || Reason::ALL.iter().copied().filter_map(row);
    for Row { reason, .. } in ordered() {
        let (code, fragment, status) = (reason.code(), reason.fragment(), reason.status());
        let (grpc, title) = (grpc(*reason), reason.title());
        page.push_str(&format!("| [`{code}`](#{fragment}) | {status} | {grpc} | {title} |\n"));
    }
    for Row { reason, from, means, client, operator } in ordered() {
        page.push_str(&format!(
            "\n## {}\n\n`{}`, HTTP {}, gRPC {}: {}.\n\n- **Answered by** {from}.\n- **Means:** {means}\n\
             - **The client:** {client}\n- **The operator:** {operator}\n",
            reason.fragment(),
            reason.code(),
            reason.status(),
            grpc(*reason),
            reason.title(),
        ));
    }
    page
}

/// One line per reason of which nothing, or twice something, is said.
pub fn mistakes() -> Vec<String> {
    let mut lines = Vec::new();
    for reason in Reason::ALL {
        let rows = ROWS.iter().filter(|row| row.reason == *reason).count();
        if rows != 1 {
            let code = reason.code();
            lines.push(format!(
                "{code}: {rows} rows in xtask/src/render/problems/table.rs; write one"
            ));
        }
    }
    if !TYPE_BASE.ends_with("/problems#") {
        lines.push(format!("{TYPE_BASE}: does not name this page"));
    }
    lines
}

fn row(reason: Reason) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.reason == reason)
}

fn grpc(reason: Reason) -> String {
    let name = match reason.grpc_code() {
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    };
    format!("{} {name}", reason.grpc_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x8_every_type_uri_names_a_part_of_the_page() {
        assert_eq!(mistakes(), [""; 0]);
        let page = page();
        for reason in Reason::ALL {
            let uri = reason.type_uri();
            let (_, fragment) = uri.split_once('#').expect("a fragment");
            let parts = page.lines().filter(|line| *line == format!("## {fragment}")).count();
            assert_eq!(parts, 1, "{uri}");
            assert!(!grpc(*reason).contains("UNKNOWN"), "{uri}");
        }
    }

    #[test]
    fn what_is_said_is_said_whole() {
        for Row { reason, from, means, client, operator } in ROWS {
            assert!(!from.ends_with('.'), "{reason:?}: the page ends the line");
            for text in [means, client, operator] {
                assert!(text.ends_with('.') && text.len() > 20, "{reason:?}: {text}");
            }
        }
    }
}
