//! The terminal while `top` draws on it: alternate screen, no cursor, no echo of keys. Restored on drop.

use std::{io, thread};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::super::output::OUT;

/// Switches to the alternate screen (xterm's 1049), without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Switches back, with the cursor.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Moves to the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line, and of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The terminal at standard output.
pub(super) struct Terminal {
    /// The settings of its input before, if they could be changed.
    before: Option<Termios>,
    quit: mpsc::UnboundedReceiver<()>,
}

impl Terminal {
    /// Takes over the terminal; none if standard output is not one.
    pub(super) fn take() -> Option<Self> {
        tcgetwinsize(io::stdout()).ok()?;
        let before = quieten().ok();
        let (sender, quit) = mpsc::unbounded_channel();
        if before.is_some() {
            // The thread ends with the process, since a read cannot be cancelled.
            thread::spawn(move || read_keys(&sender));
        }
        write!(OUT, "{ENTER}");
        Some(Self { before, quit })
    }

    /// Shows this text, as far as there is room.
    pub(super) fn draw(&mut self, text: &str) {
        let size = tcgetwinsize(io::stdout()).map_or((0, 0), |size| (size.ws_row, size.ws_col));
        write!(OUT, "{}", frame(text, size));
        OUT.is_closed();
    }

    /// Waits until q is pressed.
    pub(super) async fn quit(&mut self) {
        if self.quit.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        write!(OUT, "{LEAVE}");
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

/// Turns off line mode and echo; ^C and ^Z keep their meaning. Returns the settings before.
fn quieten() -> rustix::io::Result<Termios> {
    let before = tcgetattr(io::stdin())?;
    let mut quiet = before.clone();
    quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
    Ok(before)
}

fn read_keys(quit: &mpsc::UnboundedSender<()>) {
    let keys = io::Read::bytes(io::stdin().lock()).map_while(Result::ok);
    for key in keys {
        if matches!(key, b'q' | b'Q') && quit.send(()).is_err() {
            return;
        }
    }
}

/// The text drawn over the last screen, cut to rows and columns. A size of 0 is unknown.
fn frame(text: &str, (rows, columns): (u16, u16)) -> String {
    let cut = |limit: u16| if limit == 0 { usize::MAX } else { usize::from(limit) };
    let lines: Vec<String> = text
        .lines()
        .take(cut(rows))
        .map(|line| line.chars().filter(|c| !c.is_control()).take(cut(columns)).collect::<String>() + CLEAR_LINE)
        .collect();
    // Without a line feed after the last line: it would scroll a full screen.
    format!("{HOME}{}{CLEAR_BELOW}", lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_window_and_no_text_steers_the_terminal() {
        assert_eq!(frame("abc\ndef\nghi\n", (2, 2)), "\x1b[Hab\x1b[K\r\nde\x1b[K\x1b[J");
        assert_eq!(frame("a\x1b[2Jb\n", (0, 0)), "\x1b[Ha[2Jb\x1b[K\x1b[J");
        assert_eq!(frame("", (24, 80)), "\x1b[H\x1b[J");
    }
}
