//! Little-endian numbers in the sections that codecs and transforms write, read back without trust.

/// Appends numbers.
#[derive(Debug, Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, x: u8) {
        self.0.push(x);
    }

    pub fn u32(&mut self, x: usize) {
        self.0.extend_from_slice(&(x as u32).to_le_bytes());
    }

    pub fn u64(&mut self, x: u64) {
        self.0.extend_from_slice(&x.to_le_bytes());
    }

    pub fn floats(&mut self, x: &[f32]) {
        x.iter().for_each(|x| self.0.extend_from_slice(&x.to_le_bytes()));
    }
}

/// Takes numbers off the front; every error says what was wanted.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        match self.0.split_at_checked(count) {
            Some((front, rest)) => {
                self.0 = rest;
                Ok(front)
            }
            None => Err(format!("{} bytes left where {count} were wanted", self.0.len())),
        }
    }

    pub fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Result<usize, String> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |x, &b| x << 8 | usize::from(b)))
    }

    pub fn u64(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |x, &b| x << 8 | u64::from(b)))
    }

    /// So many finite numbers below 2^100 in magnitude; nothing is allocated before they are known to be there.
    pub fn floats(&mut self, count: usize) -> Result<Vec<f32>, String> {
        let bytes = self.take(count.checked_mul(4).ok_or("more numbers than memory")?)?;
        let floats: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match floats.iter().position(|x| x.is_nan() || x.abs() > 1.3e30) {
            Some(i) => Err(format!("number {i} is {}, wanted finite ones", floats[i])),
            None => Ok(floats),
        }
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", self.0.len())) }
    }
}
