//! The human page of an OpenAPI document: one HTML file that needs nothing else.
//!
//! It is written here and not in the browser, so that it reads without scripts as well; the script
//! only filters, switches the colours and puts the address into the examples.

use std::fmt::Write;

use serde_json::{Map, Value};

const STYLE: &str = include_str!("pages.css");
const SCRIPT: &str = include_str!("pages.js");

/// How deep examples and inline schemas go before a name has to do.
const MAX_DEPTH: usize = 4;

/// Renders the page.
pub(crate) fn render(document: &Value) -> String {
    let page = Page { document, schemas: &document["components"]["schemas"] };
    let (mut nav, mut main) = (String::new(), String::new());
    for tag in page.tags() {
        page.section(tag, &mut nav, &mut main);
    }
    page.shapes(&mut nav, &mut main);
    let title = escape(text(&document["info"]["title"]));
    let version = escape(text(&document["info"]["version"]));
    let about = prose(text(&document["info"]["description"]));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{title} API</title><style>{STYLE}</style>\
         <div class=frame><nav aria-label=Contents><div class=tools>\
         <input id=filter type=search placeholder=Filter aria-label=\"Filter paths and schemas\">\
         <button id=theme type=button title=\"Dark or light\" aria-label=\"Dark or light\">◐</button></div>{nav}</nav>\
         <main><h1>{title} API <small>{version}</small></h1>{about}\
         <p><a href=openapi.json>OpenAPI 3.1 document</a></p>{main}</main></div>\
         <script>{SCRIPT}</script></html>\n"
    )
}

struct Page<'a> {
    document: &'a Value,
    schemas: &'a Value,
}

/// Which credentials an operation asks for.
fn needed(security: &Value) -> String {
    let sets = list(security).iter().filter_map(|one| one["api_key"].as_array());
    let scope = |scope: &Value| format!("<code>{}</code>", escape(text(scope)));
    let set = |scopes: &Vec<Value>| scopes.iter().map(scope).collect::<Vec<_>>().join(" and ");
    let sets: Vec<_> = sets.map(set).collect();
    match sets.is_empty() {
        true => "<p>Needs no credentials.</p>".to_owned(),
        false => format!("<p>API keys need the scope {}.</p>", sets.join(" or ")),
    }
}

/// One operation of the document.
struct Operation<'a> {
    path: &'a str,
    verb: &'a str,
    value: &'a Value,
}

impl<'a> Page<'a> {
    /// The tags in the document's order; what every service has comes last.
    fn tags(&self) -> Vec<&'a str> {
        let mut tags: Vec<_> =
            list(&self.document["tags"]).iter().map(|tag| text(&tag["name"])).collect();
        tags.sort_by_key(|tag| *tag == "service");
        tags
    }

    fn operations(&self) -> impl Iterator<Item = Operation<'a>> {
        let verbs = ["post", "get", "put", "patch", "delete"];
        members(&self.document["paths"]).flat_map(move |(path, item)| {
            verbs
                .into_iter()
                .filter_map(move |verb| item.get(verb).map(|value| Operation { path, verb, value }))
        })
    }

    fn section(&self, tag: &str, nav: &mut String, main: &mut String) {
        let about = list(&self.document["tags"]).iter().find(|item| item["name"] == tag);
        let about = prose(about.map_or("", |item| text(&item["description"])));
        let tag_text = escape(tag);
        push(nav, format_args!("<div data-part><h2>{tag_text}</h2><ul>"));
        push(main, format_args!("<section><h2>{tag_text}</h2>{about}"));
        for operation in self.operations().filter(|one| one.value["tags"][0] == tag) {
            let Operation { path, verb, value } = operation;
            let id = escape(&format!("{verb}{}", path.replace(['/', '{', '}'], "-")));
            let summary = text(&value["summary"]).trim_end_matches('.');
            let label = inline(summary.split([';', ':', '.', ',']).next().unwrap_or(summary));
            let summary = inline(summary);
            let words =
                escape(&format!("{verb} {path} {}", text(&value["summary"])).to_lowercase());
            let path = escape(path);
            push(nav, format_args!("<li data-text=\"{words}\"><a href=\"#{id}\">{label}</a></li>"));
            push(
                main,
                format_args!(
                    "<details id=\"{id}\" data-text=\"{words}\"><summary><b class=\"verb {verb}\">{}</b>\
                     <code>{path}</code><span>{summary}</span></summary><div class=body>{}",
                    verb.to_uppercase(),
                    prose(text(&value["description"])),
                ),
            );
            self.operation(&operation, main);
            main.push_str("</div></details>");
        }
        nav.push_str("</ul></div>");
        main.push_str("</section>");
    }

    fn operation(&self, operation: &Operation<'_>, main: &mut String) {
        let value = operation.value;
        main.push_str(&needed(&value["security"]));
        let parameters = list(&value["parameters"]);
        if !parameters.is_empty() {
            main.push_str("<h3>Parameters</h3><div class=scroll><table>");
            for parameter in parameters {
                let name = text(&parameter["name"]);
                let place = format!(
                    "{} in the {}. ",
                    self.kind(&parameter["schema"], 0),
                    text(&parameter["in"])
                );
                let about = inline(text(&parameter["description"]));
                row(main, name, parameter["required"] == true, &place, &about);
            }
            main.push_str("</table></div>");
        }
        let body = &value["requestBody"]["content"]["application/json"]["schema"];
        if !body.is_null() {
            push(main, format_args!("<h3>Body: {}</h3>", self.kind(body, 0)));
            self.table(body, main);
        }
        main.push_str("<h3>Answers</h3><div class=scroll><table>");
        for (status, answer) in members(&value["responses"]) {
            let schema = &answer["content"]["application/json"]["schema"];
            let kind = if schema.is_null() { String::new() } else { self.kind(schema, 0) };
            row(main, status, false, &kind, &inline(text(&answer["description"])));
        }
        main.push_str("</table></div>");
        if value["responses"].get("101").is_none() {
            push(
                main,
                format_args!(
                    "<h3>Example</h3><pre data-curl>{}</pre>",
                    escape(&self.curl(operation))
                ),
            );
        }
    }

    fn shapes(&self, nav: &mut String, main: &mut String) {
        nav.push_str("<div data-part><h2>Schemas</h2><ul>");
        main.push_str("<section><h2>Schemas</h2><p>Every JSON object by name.</p>");
        for (name, schema) in members(self.schemas) {
            let (name, words) = (escape(name), escape(&name.to_lowercase()));
            push(
                nav,
                format_args!("<li data-text=\"{words}\"><a href=\"#{name}\">{name}</a></li>"),
            );
            push(
                main,
                format_args!(
                    "<details id=\"{name}\" data-text=\"{words}\"><summary><code>{name}</code><span>{}</span></summary><div class=body>",
                    inline(text(&schema["description"]))
                ),
            );
            self.table(schema, main);
            main.push_str("</div></details>");
        }
        nav.push_str("</ul></div>");
        main.push_str("</section>");
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            Some(name) => &self.schemas[name],
            None => schema,
        }
    }

    /// The members of an object, those of its parts included.
    fn table(&self, schema: &'a Value, main: &mut String) {
        let mut rows = String::new();
        self.rows(schema, &mut rows, 0);
        if rows.is_empty() {
            push(main, format_args!("<p>{}</p>", self.kind(schema, 0)));
        } else {
            push(main, format_args!("<div class=scroll><table>{rows}</table></div>"));
        }
    }

    fn rows(&self, schema: &'a Value, rows: &mut String, depth: usize) {
        let schema = self.resolve(schema);
        let parts = ["allOf", "oneOf"].into_iter().flat_map(|word| list(&schema[word]));
        for part in parts.filter(|_| depth < MAX_DEPTH) {
            self.rows(part, rows, depth + 1);
        }
        let required = list(&schema["required"]);
        for (name, member) in members(&schema["properties"]) {
            let must = required.iter().any(|one| one == name);
            row(rows, name, must, &self.kind(member, 0), &inline(about(member)));
        }
    }

    /// A schema's type in a few words, with a link where it has a name.
    fn kind(&self, schema: &Value, depth: usize) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            let name = escape(name);
            return format!("<a href=\"#{name}\">{name}</a>");
        }
        if depth > MAX_DEPTH {
            return "…".into();
        }
        let words = list(&schema["enum"]);
        if !words.is_empty() {
            let words: Vec<_> =
                words.iter().map(|word| format!("<code>{}</code>", escape(text(word)))).collect();
            return words.join(" ");
        }
        let parts = list(&schema["oneOf"]).iter().chain(list(&schema["allOf"]));
        let parts: Vec<_> = parts
            .filter(|part| part["type"] != "null")
            .map(|part| self.kind(part, depth + 1))
            .collect();
        if !parts.is_empty() {
            return parts.join(" or ");
        }
        match type_name(schema) {
            "array" => format!("list of {}", self.kind(&schema["items"], depth + 1)),
            "object" if schema["additionalProperties"].is_object() => {
                format!("map to {}", self.kind(&schema["additionalProperties"], depth + 1))
            }
            "" => "any".into(),
            name => escape(schema["format"].as_str().filter(|_| name == "string").unwrap_or(name)),
        }
    }

    fn curl(&self, operation: &Operation<'_>) -> String {
        let verb = operation.verb.to_uppercase();
        let mut line = format!("curl -X {verb} 'http://localhost:8080{}", operation.path);
        let mut separator = '?';
        for parameter in list(&operation.value["parameters"]) {
            if parameter["in"] == "query" && parameter["required"] == true {
                push(&mut line, format_args!("{separator}{}=…", text(&parameter["name"])));
                separator = '&';
            }
        }
        line.push('\'');
        let body = &operation.value["requestBody"]["content"]["application/json"]["schema"];
        let example = self.example(body, 0);
        if !example.is_null() {
            let body = serde_json::to_string_pretty(&example).unwrap_or_default();
            push(
                &mut line,
                format_args!(" \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"),
            );
        }
        line
    }

    /// A value that fits: an object with what it must have and what has an example.
    fn example(&self, schema: &Value, depth: usize) -> Value {
        let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        let schema = name.map_or(schema, |name| &self.schemas[name]);
        if let Some(example) = schema.get("example").or_else(|| schema["enum"].get(0)) {
            return example.clone();
        }
        if depth > MAX_DEPTH {
            return Value::Null;
        }
        match type_name(schema) {
            "object" => {
                let required = list(&schema["required"]);
                let shown = members(&schema["properties"]).filter(|(name, member)| {
                    required.iter().any(|one| *one == **name)
                        || member.get("example").is_some()
                        || *name == "participants"
                });
                let shown =
                    shown.map(|(name, member)| (name.clone(), self.example(member, depth + 1)));
                Value::Object(shown.collect::<Map<_, _>>())
            }
            "array" => Value::Array(vec![self.example(&schema["items"], depth + 1)]),
            "string" if schema["format"] == "uuid" => "550e8400-e29b-41d4-a716-446655440000".into(),
            "string" => "…".into(),
            "integer" | "number" => 0.into(),
            "boolean" => false.into(),
            _ => Value::Null,
        }
    }
}

/// The type's name, where several are allowed the first that is not null.
fn type_name(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default()
        }
        name => name.as_str().unwrap_or_default(),
    }
}

fn row(out: &mut String, name: &str, must: bool, kind: &str, about: &str) {
    let mark = if must { " <b class=must title=required>*</b>" } else { "" };
    let name = escape(name);
    push(
        out,
        format_args!("<tr><td><code>{name}</code>{mark}<td class=type>{kind}<td>{about}</tr>"),
    );
}

fn push(out: &mut String, part: std::fmt::Arguments<'_>) {
    out.write_fmt(part).expect("writing to a string cannot fail");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A member's description; that of an optional one sits in its first part.
fn about(member: &Value) -> &str {
    member["description"].as_str().unwrap_or_else(|| text(&member["oneOf"][0]["description"]))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// One paragraph: text with `code` between backticks.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = escape(part);
        if index % 2 == 1 {
            push(&mut out, format_args!("<code>{part}</code>"));
        } else {
            out.push_str(&part);
        }
    }
    out
}

/// Paragraphs separated by empty lines.
fn prose(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    paragraphs.map(|paragraph| format!("<p>{}</p>", inline(paragraph))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::openapi_document;

    fn page() -> String {
        render(&serde_json::to_value(openapi_document()).unwrap())
    }

    #[test]
    fn page_shows_every_path_and_every_shape() {
        let document = serde_json::to_value(openapi_document()).unwrap();
        let page = render(&document);
        for (path, _) in members(&document["paths"]) {
            assert!(page.contains(&format!("<code>{}</code>", escape(path))), "{path}");
        }
        for (name, _) in members(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("<details id=\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn page_loads_nothing_from_elsewhere() {
        let page = page();
        for word in ["src=", "https://", "@import", "url(", "<link"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn every_link_has_its_target() {
        let page = page();
        for link in page.split("href=\"#").skip(1) {
            let id = link.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        let mut document = serde_json::to_value(openapi_document()).unwrap();
        document["info"]["description"] = "<img onerror=x> `</script>`".into();
        document["info"]["title"] = "\"><b>".into();
        let page = render(&document);
        assert!(!page.contains("<img") && !page.contains("\"><b>"));
        assert_eq!(page.matches("</script>").count(), 1);
    }

    #[test]
    fn example_of_a_create_request_is_read_by_the_server() {
        let document = serde_json::to_value(openapi_document()).unwrap();
        let page = Page { document: &document, schemas: &document["components"]["schemas"] };
        let example = page.example(&document["components"]["schemas"]["MpcKeygenJson"], 0);
        let body = serde_json::to_vec(&example).unwrap();
        let request: quorate_wire::MpcKeygenJson = quorate_wire::parse(&body).unwrap();
        assert!(request.into_request(None).is_ok(), "{example}");
    }
}
