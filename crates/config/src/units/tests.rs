use super::*;

const MI: u64 = 1 << 20;

#[test]
fn sizes_of_kubernetes_and_of_people_are_taken() {
    let cases = [
        ("64Mi", 64 * MI),
        ("0.5Gi", 512 * MI),
        (".5Gi", 512 * MI),
        ("1.5Gi", 1536 * MI),
        ("129e6", 129_000_000),
        ("129E6", 129_000_000),
        ("1e-3", 1),
        ("128974848000m", 128_974_848),
        ("64MiB", 64 * MI),
        ("64MB", 64_000_000),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("1Ti", 1 << 40),
        ("2Pi", 1 << 51),
        ("1Ei", 1 << 60),
        ("1G", 1_000_000_000),
        ("+7", 7),
        ("7B", 7),
        ("1 Gi", 1 << 30),
        (" 64Mi ", 64 * MI),
        ("1.1", 2),
        ("0.1Ki", 103),
        ("18446744073709551615", u64::MAX),
        ("0", 0),
    ];
    let found = cases.map(|(text, _)| (text, text.parse::<ByteSize>()));
    assert_eq!(found, cases.map(|(text, bytes)| (text, Ok(ByteSize(bytes)))));
}

#[test]
fn spans_of_go_and_of_people_are_taken() {
    let cases = [
        ("250ms", 250),
        ("2h", 7_200_000),
        ("0", 0),
        ("0s", 0),
        ("7d", 604_800_000),
        ("1w", 604_800_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("5m0s", 300_000),
        ("1d12h", 129_600_000),
        ("1s500ms", 1_500),
        ("2000us", 2),
        ("1\u{b5}s", 1),
        ("1\u{3bc}s", 1),
        ("999ns", 1),
        ("+5s", 5_000),
        (".5s", 500),
        ("30 s", 30_000),
    ];
    let found = cases.map(|(text, _)| (text, text.parse::<Span>()));
    assert_eq!(found, cases.map(|(text, ms)| (text, Ok(Span(ms)))));
}

#[test]
fn percentages_are_whole() {
    let cases = [("85%", 85), ("85", 85), ("85 %", 85), ("85.0%", 85), ("0", 0), ("100%", 100)];
    let found = cases.map(|(text, _)| (text, text.parse::<Percent>()));
    assert_eq!(found, cases.map(|(text, percent)| (text, Ok(Percent(percent)))));
    let wrong: Vec<_> = ["101", "0.85", "12.5%", "-1", "", "%", "85%%", "eighty"]
        .map(|text| (text, text.parse::<Percent>()))
        .into_iter()
        .filter(|(_, found)| !found.as_ref().is_err_and(|error| error.to_string().contains("0 to 100")))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn what_is_printed_is_exact_and_reads_back() {
    let sizes = [0, 1, 1023, 1024, 5 << 20, (5 << 20) + 1, 3 << 40, u64::MAX].map(ByteSize);
    assert_eq!(sizes.map(|size| size.to_string().parse::<ByteSize>()), sizes.map(Ok));
    let spans = [0, 1, 999, 1000, 90_000, 3_600_000].map(Span);
    assert_eq!(spans.map(|span| span.to_string().parse::<Span>()), spans.map(Ok));
    assert_eq!(ByteSize(64 << 20).to_string(), "64Mi");
}

#[test]
fn refuses_invalid_sizes_and_spans_with_an_example() {
    let sizes = ["64 MB!", "", "Mi", "-1", "1..5Gi", "99999999999Ti", "64mi", "1e99", "0x10", "1Ki1", "64mB", "1,5Gi"];
    let wrong: Vec<_> = sizes
        .map(|text| (text, text.parse::<ByteSize>().map_err(|error| error.to_string())))
        .into_iter()
        .filter(|(text, found)| {
            let is_named = |error: &String| error.contains(&format!("{text:?}")) && error.contains("64Mi");
            !found.as_ref().is_err_and(is_named)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!("64mi".parse::<ByteSize>().unwrap_err().to_string().contains("did you mean Mi?"));
    assert!("-64Mi".parse::<ByteSize>().unwrap_err().to_string().contains("negative"));
    let spans = ["5", "", "s", "-1s", "1..2s", "1e3s", "1h30", "1h-30m", "1y", "99999999999999999w", "1h,30m"];
    let wrong: Vec<_> = spans
        .map(|text| (text, text.parse::<Span>().map_err(|error| error.to_string())))
        .into_iter()
        .filter(|(text, found)| {
            let is_named =
                |error: &String| error.contains(&format!("{text:?} is not a duration")) && error.contains("250ms");
            !found.as_ref().is_err_and(is_named)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!("5".parse::<Span>().unwrap_err().to_string().contains("it has no unit"));
}

#[test]
fn quantities_are_those_of_kubernetes_and_no_others() {
    let pairs = [("1", "1000m"), ("1Gi", "1024Mi"), ("1.5Ki", "1536"), ("1e3", "1k"), ("+5", "5"), ("2E3", "2k")];
    let parsed = pairs.map(|(a, b)| (a, Quantity::parse(a), b, Quantity::parse(b)));
    let wrong: Vec<_> = parsed.into_iter().filter(|(_, a, _, b)| a.is_none() || a != b).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(Quantity::parse("100M") < Quantity::parse("100Mi"));
    assert!(Quantity::parse("-1").unwrap() < Quantity::ZERO);
    assert_eq!(Quantity::parse("0.5"), Quantity::parse("500m"));
    let texts = ["", "Mi", "1 Gi", "1GB", "lots", "1.2.3", "--1", "1e", "1e99", ".", "0x10", "1Ki1", "9e18Ei"];
    assert_eq!(texts.map(|text| (text, Quantity::parse(text))), texts.map(|text| (text, None)));
}

#[test]
fn sizes_are_spelled_as_kubernetes_spells_them() {
    let cases = [
        ("64Mi", "64Mi"),
        ("64MiB", "64Mi"),
        ("64MB", "64M"),
        ("64KB", "64k"),
        ("64KiB", "64Ki"),
        (" 0.5 GiB ", "0.5Gi"),
        ("129e6", "129e6"),
        ("1E", "1E"),
        ("128974848000m", "128974848000m"),
        ("67108864B", "67108864"),
    ];
    let found = cases.map(|(text, _)| (text, Quantity::spelled(text)));
    assert_eq!(found, cases.map(|(text, spelled)| (text, Some(spelled.to_owned()))));
    let sizes = cases.map(|(text, spelled)| (text, spelled.parse::<ByteSize>()));
    assert_eq!(sizes, cases.map(|(text, _)| (text, Ok(text.parse::<ByteSize>().unwrap()))));
    let texts = ["64mi", "lots", "-1Mi", "", "6 4Mi"];
    assert_eq!(texts.map(|text| (text, Quantity::spelled(text))), texts.map(|text| (text, None)));
}

/// Helm checks values by the schema, before Ebb can.
#[test]
fn schemas_take_the_numbers_that_the_parsers_take() {
    use schemars::{JsonSchema, SchemaGenerator};
    let schema = |schema: fn(&mut SchemaGenerator) -> schemars::Schema| {
        schema(&mut SchemaGenerator::default()).as_value().clone()
    };
    assert_eq!(schema(ByteSize::json_schema)["type"], serde_json::json!(["string", "number"]));
    let share = schema(Percent::json_schema);
    assert_eq!((&share["type"][1], &share["maximum"]), (&"integer".into(), &100.into()));
    assert_eq!(schema(Span::json_schema)["maximum"], 0, "a number without a unit is refused, unless it is 0");
}

#[test]
fn numbers_of_yaml_are_taken_where_they_are_exact() {
    let size = |yaml: &str| crate::yaml::configuration::<ByteSize>(yaml).map(|size| size.0).map_err(|e| e.to_string());
    assert_eq!((size("129e6"), size("67108864"), size("0.5Gi")), (Ok(129_000_000), Ok(64 * MI), Ok(512 * MI)));
    assert!(size("-5").unwrap_err().contains("negative") && size("true").unwrap_err().contains("a size such as 64Mi"));
    let share = crate::yaml::configuration::<Percent>("0.85").unwrap_err().to_string();
    assert!(share.contains("percentage (a whole number from 0 to 100"), "{share}");
}
