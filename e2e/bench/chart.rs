//! The picture beside the tables: what a change costs as the cluster grows.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::contender::Contender;
use crate::record::{Measure, Records};

/// Draws the time from a write to the first connect over the number of Services, both axes logarithmic: the median as a
/// line, the 99th percentile as a dot above it.
pub(crate) fn draw(records: &Records, measure: Measure, title: &str, file: &Path) -> Result<()> {
    let lines = lines(records, measure);
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let most = points().map(|point| point.services).max().unwrap_or(1);
    let least = points().map(|point| point.services).min().unwrap_or(1);
    let area = SVGBackend::new(file, (820, 460)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (f64::from(least) * 0.8..f64::from(most) * 1.3).log_scale(),
            (LEAST_MILLISECONDS..20_000.0).log_scale(),
        )
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("Services")
        .y_desc("milliseconds")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value}"))
        .light_line_style(BLACK.mix(0.04))
        .draw()
        .map_err(failed)?;
    for (line, color) in lines.iter().zip(COLORS) {
        let at =
            |point: &Point, value: f64| (f64::from(point.services), value.max(LEAST_MILLISECONDS));
        let medians = line.points.iter().map(|point| at(point, point.median));
        chart
            .draw_series(LineSeries::new(medians.clone(), color.stroke_width(3)))
            .map_err(failed)?
            .label(line.contender.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3)));
        let dots = medians.map(|place| Circle::new(place, 4, color.filled()));
        chart.draw_series(dots).map_err(failed)?;
        let worst = line.points.iter().map(|point| at(point, point.p99));
        chart
            .draw_series(worst.map(|place| Circle::new(place, 4, color)))
            .map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(failed)?;
    area.present().map_err(failed)
}

struct Line {
    contender: Contender,
    points: Vec<Point>,
}

struct Point {
    services: u32,
    median: f64,
    p99: f64,
}

fn lines(records: &Records, measure: Measure) -> Vec<Line> {
    let (contenders, sizes) = records.extent();
    let line = |contender| {
        let points = sizes.iter().filter_map(|&services| {
            let figures = records.figures(measure, services, contender)?;
            Some(Point {
                services,
                median: figures.percentile(50),
                p99: figures.percentile(99),
            })
        });
        Line {
            contender,
            points: points.collect(),
        }
    };
    let lines = contenders.into_iter().map(line);
    lines.filter(|line| !line.points.is_empty()).collect()
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("failed to draw the chart: {error}")
}

/// What cannot be told from nothing: the prober tries each 0.2 ms.
const LEAST_MILLISECONDS: f64 = 0.1;
/// One for each contender there is.
const COLORS: [RGBColor; 9] = [
    RGBColor(0x0b, 0x6e, 0x4f),
    RGBColor(0xc0, 0x39, 0x2b),
    RGBColor(0xe6, 0x7e, 0x22),
    RGBColor(0x29, 0x80, 0xb9),
    RGBColor(0x8e, 0x44, 0xad),
    RGBColor(0x7f, 0x8c, 0x8d),
    RGBColor(0xf1, 0xc4, 0x0f),
    RGBColor(0x2c, 0x3e, 0x50),
    RGBColor(0xd9, 0x80, 0xb8),
];

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_contender_has_a_color_of_its_own() {
        assert_eq!(Contender::value_variants().len(), COLORS.len());
        for (number, color) in COLORS.iter().enumerate() {
            assert!(!COLORS[..number].contains(color), "{color:?}");
        }
    }
}
