//! [`Sparkline`]: a curve of numbers as the paths of an SVG.

use std::fmt::Write;

/// The width of the curve: one step for each sample of 15 minutes.
const WIDTH: usize = 180;
/// The y of zero, and the height of the greatest value above it.
const BASE: f64 = 31.0;
const HEIGHT: f64 = 29.0;

/// A curve in a box of 180 by 32 units; the newest value is at the right edge.
#[derive(Debug, Default)]
pub(super) struct Sparkline {
    /// The path of the curve.
    pub(super) line: String,
    /// The closed path of the area below it.
    pub(super) area: String,
}

impl Sparkline {
    /// Draws the values, the newest last. `None` is a gap.
    pub(super) fn new(values: impl ExactSizeIterator<Item = Option<f64>> + Clone) -> Self {
        let greatest = values.clone().flatten().fold(0.0_f64, f64::max);
        let scale = if greatest > 0.0 { HEIGHT / greatest } else { 0.0 };
        let offset = WIDTH.saturating_sub(values.len());
        let mut drawn = Self::default();
        let mut segment: Option<(usize, usize)> = None;
        for (at, value) in values.enumerate() {
            let x = offset + at;
            match (value, segment) {
                (None, _) => drawn.close(segment.take()),
                (Some(value), before) => {
                    let y = BASE - value * scale;
                    let command = if before.is_some() { 'L' } else { 'M' };
                    // Writing to a String does not fail.
                    let _ = write!(drawn.line, "{command}{x} {y:.1}");
                    let _ = match before {
                        Some(_) => write!(drawn.area, "L{x} {y:.1}"),
                        None => write!(drawn.area, "M{x} {BASE}L{x} {y:.1}"),
                    };
                    segment = Some((before.map_or(x, |(from, _)| from), x));
                }
            }
        }
        drawn.close(segment);
        drawn
    }

    /// Ends a segment between two gaps. One of a single value becomes a short line, so that it can be seen.
    fn close(&mut self, segment: Option<(usize, usize)>) {
        let Some((from, to)) = segment else { return };
        if from == to {
            self.line.push_str("h1");
        }
        let _ = write!(self.area, "L{to} {BASE}Z");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_is_at_the_right_and_a_gap_is_left_out() {
        let drawn = Sparkline::new([Some(0.0), Some(10.0), None, Some(5.0)].into_iter());
        assert_eq!(drawn.line, "M176 31.0L177 2.0M179 16.5h1");
        assert_eq!(drawn.area, "M176 31L176 31.0L177 2.0L177 31ZM179 31L179 16.5L179 31Z");
        assert_eq!(Sparkline::new([Some(0.0); 2].into_iter()).line, "M178 31.0L179 31.0");
        assert_eq!(Sparkline::new([None; 2].into_iter()).line, "");
    }
}
