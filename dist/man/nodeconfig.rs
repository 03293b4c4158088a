//! flock-nodeconfig(5): the fields from the schema of the custom resource, example and annotations of pods from README.
//!
//! Must not say anything of a field itself: what is missing belongs into the schema.

use yaml_serde::Value;

use crate::mdoc::{Page, argument, path, sentence, typed};

const SCHEMA: &str = include_str!("../../deploy/base/crds/nodeconfigs-crd.yaml");
const README: &str = include_str!("../../README.md");

/// The page.
pub fn page(date: &str) -> String {
    let mut page = Page::new("flock-nodeconfig", 5, date, "what flock is told of a node, and annotations of pods");
    page.section("DESCRIPTION");
    page.prose(
        "A NodeConfig describes the pod network of one node. With Kubernetes, it is an object of the API that bears the node's name; without \
         it, a file in YAML or JSON that `flock-agent` reads by `--node-config`. Either is followed without a restart. One that is wrong is refused \
         as a whole, and the last good one stays in force.",
    );
    page.paragraph(
        "`flock-agent validate` says every mistake in a file before an agent reads it, each with its line and what to do.",
    );
    let schema = schema();
    let spec = at(&schema, &["properties", "spec"]);
    let status = at(&schema, &["properties", "status"]);
    page.section("FIELDS");
    page.prose("A list is written `[]`, and what stands behind it is of each of its members. Behind Refused stands what the API server says of wrong values.");
    page.list(
        [
            ("apiVersion", "`flock.fritzlab.net/v1alpha1`."),
            ("kind", "`NodeConfig`."),
            ("metadata.name", "The name of the node."),
            ("metadata.annotations", "`flock.fritzlab.net/ip-algo` holds for pods that do not have the annotation. The other annotations below are for pods."),
        ]
        .map(|(name, what)| (typed(name), what.to_owned())),
    );
    if let Some(spec) = spec {
        page.paragraph(&format!("The spec. {}", refused(spec).trim_start()));
        page.list(fields("spec", spec));
    }
    if let Some(status) = status {
        page.section("STATUS");
        page.prose(&text(status, "description"));
        page.list(fields("status", status));
    }
    page.section("POD ANNOTATIONS");
    page.list(annotations());
    for paragraph in prose_below_the_annotations() {
        page.paragraph(&paragraph);
    }
    page.section("FILES");
    page.list([(
        path("/etc/flock/node.yaml"),
        "The NodeConfig of a node without Kubernetes, as the unit has it.".to_owned(),
    )]);
    page.section("EXAMPLES");
    page.lines(example());
    page.see_also(&[("flock-agent", 8), ("flock-cni", 8)]);
    page.text()
}

/// The schema of a NodeConfig, which is the first of the file.
fn schema() -> Value {
    let first = SCHEMA.split("\n---\n").next().unwrap_or_default();
    let kind: Value = yaml_serde::from_str(first).unwrap_or_default();
    let versions = at(&kind, &["spec", "versions"]).and_then(Value::as_sequence);
    let schema = versions.and_then(|all| all.first()).and_then(|one| at(one, &["schema", "openAPIV3Schema"]));
    schema.cloned().unwrap_or_default()
}

fn at<'a>(value: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().try_fold(value, |value, name| value.get(*name))
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Every field below this one, in the schema's order, by its whole path.
fn fields(above: &str, object: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let required = object.get("required").and_then(Value::as_sequence).cloned().unwrap_or_default();
    for (name, field) in object.get("properties").and_then(Value::as_mapping).into_iter().flatten() {
        let Some(name) = name.as_str() else { continue };
        let path = format!("{above}.{name}");
        let needed = if required.iter().any(|one| one.as_str() == Some(name)) { " Needed." } else { "" };
        found.push((typed(&path), format!("{} {}{needed}{}", form(field), text(field, "description"), refused(field))));
        match field.get("items") {
            Some(item) => found.extend(fields(&format!("{path}[]"), item)),
            None => found.extend(fields(&path, field)),
        }
    }
    found
}

/// What a value looks like, as a sentence.
fn form(field: &Value) -> String {
    let number = |name: &str| field.get(name).and_then(Value::as_i64).map(|number| number.to_string());
    let words = |one: &Value| one.as_str().map(|word| format!("`{word}`"));
    let choices =
        field.get("enum").and_then(Value::as_sequence).map(|all| all.iter().filter_map(words).collect::<Vec<_>>());
    let kind = text(field, "type");
    sentence(&match (kind.as_str(), choices) {
        (_, Some(choices)) => format!("one of {}", choices.join(", ")),
        ("boolean", _) => "`true` or `false`".into(),
        ("integer", _) => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
            _ => "a whole number".into(),
        },
        ("array", _) => match number("maxItems") {
            Some(most) => format!("a list of at most {most}"),
            None => "a list".into(),
        },
        ("object", _) => "an object".into(),
        ("string", _) if text(field, "format") == "date-time" => "a point of time".into(),
        ("string", _) => match number("maxLength") {
            Some(most) => format!("a text of at most {most} bytes"),
            None => "a text".into(),
        },
        _ => "a number or a word".into(),
    })
}

/// What is said of values that are refused, of the field itself and of its members.
fn refused(field: &Value) -> String {
    let of = |value: &Value| -> Vec<String> {
        let rules = value.get("x-kubernetes-validations").and_then(Value::as_sequence).into_iter().flatten();
        let pattern = value.get("pattern").and_then(Value::as_str).map(|pattern| format!("must match `{pattern}`"));
        rules.map(|rule| text(rule, "message")).chain(pattern).collect()
    };
    let mut all = of(field);
    all.extend(field.get("items").map(of).unwrap_or_default());
    if all.is_empty() { String::new() } else { format!(" Refused: {}.", all.join("; ")) }
}

/// The part of README between this heading and the next one.
fn part(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n{heading}\n")).unwrap_or_default();
    rest.split("\n#").next().unwrap_or_default()
}

/// The block that README configures a node by.
fn example() -> &'static str {
    let (_, rest) = part("## Configure a node").split_once("```yaml\n").unwrap_or_default();
    rest.split("```").next().unwrap_or_default()
}

/// The rows of README's table: names, and values with their meaning.
fn annotations() -> Vec<(String, String)> {
    let rows = part("### Pod annotations").lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &str| row.trim_matches(['|', ' ']).split(" | ").map(str::to_owned).collect::<Vec<_>>();
    let row = |row: &str| match cells(row).as_slice() {
        [names, value, meaning] => {
            let names: Vec<String> = names.split(", ").map(|name| argument(name.trim_matches('`'))).collect();
            Some((format!("Ic {}", names.join(" , Ic ")), format!("Value: {value}. {}", sentence(meaning))))
        }
        _ => None,
    };
    rows.filter_map(row).collect()
}

/// What stands below that table.
fn prose_below_the_annotations() -> Vec<String> {
    let paragraphs = part("### Pod annotations").split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs
        .map(|paragraph| paragraph.trim().to_owned())
        .filter(|text| !text.is_empty() && !text.starts_with('|'))
        .collect()
}
