//! Bars drawn as SVG, with their figures as a table beside.

use std::fmt::Write;

use crate::serve::shown::labels;
use crate::totals::Sums;

/// The width of a bar with the room to its right, and the height of the highest.
const STEP: usize = 10;
const HEIGHT: f64 = 100.0;

/// A figure with its digits in groups; a dash where it is not known.
pub fn grouped(figure: impl Into<Option<u64>>) -> String {
    figure.into().map_or_else(|| "–".to_owned(), |figure| labels::grouped(figure, ","))
}

/// A number of things: `1 view`, `2 views`.
fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A plot of views, whose last bar is of the running bucket; `id` is the page's only one, `unit` what a bar
/// stands for.
pub fn bars(id: &str, title: &str, unit: &str, bars: &[(String, &Sums)]) -> String {
    let most = bars.iter().map(|(_, sums)| sums.views).max().unwrap_or(0);
    let total = counted(bars.iter().map(|(_, sums)| sums.views).sum(), "view");
    let highest = bars.iter().rev().find(|(_, sums)| sums.views == most);
    let highest = highest.filter(|_| most > 0).map_or(String::new(), |(name, _)| format!(", most at {name}"));
    let mut html = format!(
        "<figure><figcaption>{title} <span>{total}, peak {}</span></figcaption>\
         <svg role=\"img\" aria-labelledby=\"{id}-t {id}-d\" viewBox=\"0 0 {} {HEIGHT}\" \
         preserveAspectRatio=\"none\"><title id=\"{id}-t\">{title}: views</title>\
         <desc id=\"{id}-d\">{total}{highest}</desc>",
        grouped(most),
        bars.len() * STEP
    );
    let mut rows = String::new();
    for (place, (name, sums)) in bars.iter().enumerate() {
        let (views, visits) = (grouped(sums.views), grouped(sums.visits));
        let share = sums.views as f64 / most.max(1) as f64;
        // A single view beside many must still be visible.
        let height = if sums.views == 0 { 0.0 } else { (share * HEIGHT).max(1.5) };
        let part = if place + 1 == bars.len() { " class=\"part\"" } else { "" };
        // Writing into a String cannot fail.
        let _ = write!(
            html,
            "<g><title>{name}: {}, {}</title><rect class=\"none\" x=\"{}\" y=\"0\" \
             width=\"{STEP}\" height=\"{HEIGHT}\"/><rect{part} x=\"{}\" y=\"{:.1}\" width=\"{}\" \
             height=\"{height:.1}\"/></g>",
            counted(sums.views, "view"),
            counted(sums.visits, "visit"),
            place * STEP,
            place * STEP + 1,
            HEIGHT - height,
            STEP - 2
        );
        let _ = write!(rows, "<tr><th scope=\"row\">{name}</th><td>{views}</td><td>{visits}</td></tr>");
    }
    let name = |place: usize| bars.get(place).map_or("", |(name, _)| name.as_str());
    let _ = write!(
        html,
        "</svg><p class=\"axis\" aria-hidden=\"true\"><span>{}</span><span>{}</span><span>{}</span></p>\
         <details><summary>As a table</summary><table><thead><tr><th scope=\"col\">{unit}</th>\
         <th scope=\"col\">Views</th><th scope=\"col\">Visits</th></tr></thead><tbody>{rows}</tbody></table>\
         </details></figure>",
        name(0),
        name(bars.len() / 2),
        name(bars.len().saturating_sub(1))
    );
    html
}
