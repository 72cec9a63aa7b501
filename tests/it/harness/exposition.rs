//! Reads the text exposition format of Prometheus, as far as scenarios need it.

/// The sum of all series in `text` with the name of `series` and at least its labels: `name{label="value",…}`.
pub fn value(text: &str, series: &str) -> f64 {
    let (name, labels) = split(series);
    let wanted: Vec<_> = labels.split(',').filter(|label| !label.is_empty()).collect();
    let mut known = false;
    let mut sum = 0.0;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            known |= described.split(' ').next() == Some(name);
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (found, labels) = split(series);
        if found == name && wanted.iter().all(|wanted| labels.split(',').any(|label| label == *wanted)) {
            known = true;
            sum += value.parse::<f64>().unwrap();
        }
    }
    // A family without series is absent from the exposition: its name is checked against the table instead.
    let stem = name.trim_end_matches("_count").trim_end_matches("_sum");
    let named = vaxel::metrics::names::METRICS.iter().any(|metric| metric.name == name || metric.name == stem);
    assert!(known || named, "there is no metric {name}");
    sum
}

fn split(series: &str) -> (&str, &str) {
    series.split_once('{').map_or((series, ""), |(name, labels)| (name, labels.trim_end_matches('}')))
}

#[test]
fn series_are_found_by_name_and_labels() {
    let text = "# TYPE vaxel_x gauge\nvaxel_x{a=\"1\",b=\"2\"} 3\nvaxel_x{a=\"1\",b=\"3\"} 4\nvaxel_xy 9\n";
    assert!((value(text, "vaxel_x{b=\"3\"}") - 4.0).abs() < 1e-9);
    assert!((value(text, "vaxel_x{a=\"1\"}") - 7.0).abs() < 1e-9);
    assert!((value(text, "vaxel_x") - 7.0).abs() < 1e-9);
    assert!(value(text, "vaxel_x{b=\"4\"}").abs() < 1e-9);
}
