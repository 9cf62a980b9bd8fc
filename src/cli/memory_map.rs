//! `ebb memory-map`: a histogram and a map of the occupancy of segments.
//!
//! ```text
//!  a cell for each segment, oldest first:   shard 0  nursery  ██▓█
//!                                                    main     ·░██▓▓██████████████
//! ```
//! The map has at most about 2,000 cells. In a large cache, a cell represents several segments.

use clap::Args;

use super::connect::{AdminAt, refused};
use ebb_config::units::format::{bytes, count, counted};
use ebb_proto as proto;
use ebb_proto::json;
use ebb_terminal::{Outcome, Output, Table, output};

/// Cells per line.
const LINE: usize = 64;
/// Maximum number of full cells.
const MOST_CELLS: usize = 2048;

/// Show the occupancy of segments.
#[derive(Args, Debug)]
#[command(after_help = "\
Occupancy is the share of live bytes in a segment; compaction frees segments with a low one.
The histogram counts segments by occupancy. The map below it has a cell for each segment (or
several, if there are thousands), by shard and log, oldest first. JSON contains the percentage
of every segment.

Example:
  ebb memory-map --output json")]
pub(crate) struct MemoryMapArgs {
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

/// Prints the histogram and the map.
pub(super) async fn run(args: MemoryMapArgs) -> Outcome {
    let at = args.at.server().await?;
    let refuse = |s: tonic::Status| refused("memory-map", &at, &s);
    let answer = at.connect().await?.get_memory_map(proto::GetMemoryMapRequest {}).await.map_err(refuse)?;
    let map = answer.into_inner();
    match args.output {
        Output::Json => output::json(&json::of(&map)),
        Output::Text => output::line(format!("{}\n{}", histogram(&map), cells(&map)).trim_end()),
    }
}

fn histogram(map: &proto::GetMemoryMapResponse) -> String {
    const WIDTH: u64 = 40;
    let most = map.occupancy.iter().copied().max().unwrap_or(0).max(1);
    let mut table = Table::new(["live", "segments", ""]);
    for (tenth, n) in map.occupancy.iter().enumerate() {
        let bar = "█".repeat((n * WIDTH).div_ceil(most) as usize);
        table.row([format!("{:>3}-{} %", tenth * 10, tenth * 10 + 10), count(*n), format!("{bar:<40}")]);
    }
    let segments: u64 = map.occupancy.iter().sum();
    format!("{table}\n{} of {}\n", counted(segments, "segment", "segments"), bytes(map.segment_bytes))
}

/// The map; empty if there are no segments or an older server does not report them.
fn cells(map: &proto::GetMemoryMapResponse) -> String {
    let segments: usize = map.logs.iter().map(|log| log.occupancy_percent.len()).sum();
    if segments == 0 {
        return String::new();
    }
    let each = segments.div_ceil(MOST_CELLS);
    let cell = match each {
        1 => "one cell per segment".to_owned(),
        _ => format!("one cell per {each} segments, showing their mean"),
    };
    let mut text = format!(
        "oldest first; {cell}; live: · under 10 %, ░ under 40 %, ▒ under 70 %, ▓ under 90 %, █ 90 % or more\n\n"
    );
    let mut last = None;
    for log in &map.logs {
        let shard = if last == Some(log.shard) { String::new() } else { format!("shard {}", log.shard) };
        last = Some(log.shard);
        let row: Vec<char> = log.occupancy_percent.chunks(each).map(shade).collect();
        for (number, line) in row.chunks(LINE).enumerate() {
            let (shard, name) = if number == 0 { (&*shard, &*log.name) } else { ("", "") };
            text += &format!("{shard:<9}  {name:<7}  {}\n", line.iter().collect::<String>());
        }
    }
    text
}

/// The cell for some segments, by their mean occupancy.
fn shade(percent: &[u32]) -> char {
    match percent.iter().sum::<u32>() / percent.len().max(1) as u32 {
        0..10 => '·',
        10..40 => '░',
        40..70 => '▒',
        70..90 => '▓',
        90.. => '█',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::get_memory_map_response::Log;

    #[test]
    fn the_longest_bar_is_the_most_frequent_tenth() {
        let occupancy = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 80];
        let map = proto::GetMemoryMapResponse { segment_bytes: 65536, occupancy, logs: Vec::new() };
        let text = histogram(&map);
        let bars: Vec<usize> = text.lines().map(|line| line.matches('█').count()).collect();
        assert_eq!((bars[2], bars[3], bars[11]), (1, 0, 40), "{text}");
        assert!(text.ends_with("81 segments of 64.0 KiB\n"), "{text}");
        let one = proto::GetMemoryMapResponse { occupancy: vec![0, 1], ..map.clone() };
        assert!(histogram(&one).ends_with("\n1 segment of 64.0 KiB\n"), "{}", histogram(&one));
        assert_eq!(cells(&map), "", "an older server reports no segments");
    }

    #[test]
    fn every_segment_has_its_cell_by_shard_and_log() {
        let log =
            |shard, name: &str, percent: &[u32]| Log { shard, name: name.into(), occupancy_percent: percent.into() };
        let logs = vec![log(0, "nursery", &[100]), log(0, "main", &[0, 10, 40, 70, 90]), log(3, "main", &[99; 65])];
        let map = proto::GetMemoryMapResponse { logs, ..Default::default() };
        let text = cells(&map);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("one cell per segment;"), "{text}");
        assert_eq!(lines[2], "shard 0    nursery  █");
        assert_eq!(lines[3], "           main     ·░▒▓█");
        assert_eq!(lines[4], format!("shard 3    main     {}", "█".repeat(64)));
        assert_eq!(lines[5], "                    █", "a long log continues on the next line");
        assert_eq!(json::of(&map)["logs"][1]["occupancy_percent"][2], 40);
    }

    #[test]
    fn thousands_of_segments_share_cells_and_it_says_so() {
        let log = |shard| Log { shard, name: "main".into(), occupancy_percent: [0, 100].repeat(2_500) };
        let text = cells(&proto::GetMemoryMapResponse { logs: (0..4).map(log).collect(), ..Default::default() });
        assert!(text.contains("one cell per 10 segments, showing their mean"), "{text}");
        assert_eq!(text.lines().skip(2).map(|line| line.matches('▒').count()).sum::<usize>(), 2_000);
        assert!(text.lines().count() < 50);
    }
}
