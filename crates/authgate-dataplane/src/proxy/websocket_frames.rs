//! The frames of a WebSocket (RFC 6455, section 5.2), as far as the gateway needs them: where a frame ends, so that a Close frame may follow.

/// The longest header: two bytes, a length of eight bytes, and a mask.
const MAX_HEADER: usize = 14;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;
const IS_FINAL: u8 = 0x80;
const IS_MASKED: u8 = 0x80;
/// "An endpoint is terminating the connection because it has received a message that violates its policy" (RFC 6455, section 7.4.1).
const POLICY_VIOLATION: [u8; 2] = 1008_u16.to_be_bytes();

/// Follows the frames of one direction. It checks nothing: the peers do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FrameTracker {
    /// The header that is under way.
    header: [u8; MAX_HEADER],
    // 0 <= header_length < MAX_HEADER
    header_length: usize,
    /// Bytes of the payload that are still to come.
    payload: u64,
    has_closed: bool,
}

impl FrameTracker {
    /// Whether a frame has ended, and the next one has not begun. A control frame may be between the fragments of a message.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.header_length == 0 && self.payload == 0
    }

    /// Whether a Close frame has begun. No frame may follow it (RFC 6455, section 5.5.1).
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Takes bytes of any number of frames.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.take_in_frame(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Takes bytes up to the end of one frame: the frame under way, or the next one. Returns their number.
    pub(super) fn take_in_frame(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.payload == 0 {
            let Some(byte) = bytes.get(at) else { return at };
            at += 1;
            self.header[self.header_length] = *byte;
            self.header_length += 1;
            if let Some(payload) = payload_length(&self.header[..self.header_length]) {
                self.has_closed |= self.header[0] & OPCODE == CLOSE;
                self.header_length = 0;
                self.payload = payload;
                if payload == 0 {
                    return at;
                }
            }
        }
        let rest = bytes.len() - at;
        let taken = usize::try_from(self.payload).map_or(rest, |payload| payload.min(rest));
        self.payload -= taken as u64;
        at + taken
    }
}

/// The length of the payload, if the header is complete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let (second, rest) = header.get(1..)?.split_first()?;
    let length_bytes = match second & !IS_MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask_bytes = if second & IS_MASKED == 0 { 0 } else { 4 };
    if rest.len() < length_bytes + mask_bytes {
        return None;
    }
    Some(match length_bytes {
        0 => u64::from(second & !IS_MASKED),
        length_bytes => rest[..length_bytes]
            .iter()
            .fold(0, |length, byte| length << 8 | u64::from(*byte)),
    })
}

/// The Close frame for the client.
pub(super) fn close_for_client() -> Vec<u8> {
    [&[IS_FINAL | CLOSE, 2], &POLICY_VIOLATION[..]].concat()
}

/// The Close frame for the server, masked as all frames of a client are (RFC 6455, section 5.3).
pub(super) fn close_for_server() -> Vec<u8> {
    let mask = fastrand::u32(..).to_be_bytes();
    let masked = [POLICY_VIOLATION[0] ^ mask[0], POLICY_VIOLATION[1] ^ mask[1]];
    [&[IS_FINAL | CLOSE, IS_MASKED | 2], &mask[..], &masked[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, mask: bool) -> Vec<u8> {
        let mask_bit = if mask { IS_MASKED } else { 0 };
        let mut frame = vec![opcode];
        match length {
            0..126 => frame.push(mask_bit | length as u8),
            126..0x1_0000 => {
                frame.push(mask_bit | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if mask {
            frame.extend_from_slice(&[7; 4]);
        }
        frame.extend(std::iter::repeat_n(0x88, length));
        frame
    }

    #[test]
    fn frames_end_where_they_end_however_they_are_split() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let lengths = [0, 1, 125, 126, 65_535, 65_536];
            let frames: Vec<Vec<u8>> = (0..random.usize(1..6))
                .map(|_| {
                    let opcode = [0x00, 0x81, 0x02, 0x89][random.usize(..4)];
                    frame(opcode, lengths[random.usize(..lengths.len())], random.bool())
                })
                .collect();
            let all = frames.concat();
            let mut ends = Vec::new();
            let (mut tracker, mut at) = (FrameTracker::default(), 0);
            while at < all.len() {
                let piece = random.usize(1..=all.len() - at).min(random.usize(1..40_000));
                let taken = tracker.take_in_frame(&all[at..at + piece]);
                assert!(taken > 0 && taken <= piece);
                at += taken;
                if tracker.is_at_boundary() {
                    ends.push(at);
                }
            }
            let expected: Vec<usize> = frames
                .iter()
                .scan(0, |end, frame| {
                    *end += frame.len();
                    Some(*end)
                })
                .collect();
            assert_eq!(ends, expected);
            assert!(!tracker.has_closed());
            tracker.take(&[&all[..], &[IS_FINAL | CLOSE]].concat());
            assert!(!tracker.is_at_boundary() && !tracker.has_closed());
            tracker.take(&[0]);
            assert!(tracker.is_at_boundary() && tracker.has_closed());
        }
    }

    #[test]
    fn any_bytes_have_one_reading_however_they_are_split() {
        let mut random = fastrand::Rng::with_seed(8);
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..random.usize(1..60)).map(|_| random.u8(..)).collect();
            let (mut whole, mut split) = (FrameTracker::default(), FrameTracker::default());
            whole.take(&bytes);
            bytes.chunks(random.usize(1..9)).for_each(|piece| split.take(piece));
            assert_eq!(whole, split, "{bytes:?}");
        }
    }

    #[test]
    fn the_longest_length_is_no_error() {
        let mut tracker = FrameTracker::default();
        let header = [0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4];
        tracker.take(&header);
        tracker.take(&[0; 1000]);
        assert!(!tracker.is_at_boundary());
    }

    #[test]
    fn close_frames_are_whole_and_say_1008() {
        for close in [close_for_client(), close_for_server()] {
            let mut tracker = FrameTracker::default();
            assert_eq!(tracker.take_in_frame(&close), close.len());
            assert!(tracker.is_at_boundary() && tracker.has_closed());
        }
        assert_eq!(close_for_client(), [0x88, 2, 0x03, 0xf0]);
        let close = close_for_server();
        assert_eq!([close[6] ^ close[2], close[7] ^ close[3]], [0x03, 0xf0]);
    }
}
