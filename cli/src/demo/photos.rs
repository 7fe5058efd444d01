//! Photographs: the bundled ones, or a user's, all brought to one size.

use crate::text::printable;
use anyhow::{Context as _, Result, ensure};
use image::imageops::FilterType;
use image::{DynamicImage, GenericImageView as _, ImageDecoder, ImageReader};
use std::io::{BufRead, Cursor, Seek};
use std::path::Path;

/// Name and file of the photographs in the program; their terms are in assets/photos/README.md.
const BUNDLED: [(&str, &[u8]); 4] = [
    ("chelsea", include_bytes!("../../assets/photos/chelsea.jpg")),
    (
        "astronaut",
        include_bytes!("../../assets/photos/astronaut.jpg"),
    ),
    ("coffee", include_bytes!("../../assets/photos/coffee.jpg")),
    ("rocket", include_bytes!("../../assets/photos/rocket.jpg")),
];

/// Most memory that one decoded photograph may take.
const MAX_DECODED_BYTES: u64 = 2 << 30;

/// A photograph's pixels.
#[derive(Debug, Clone)]
pub struct Photo {
    /// Name of its file, less the extension.
    pub name: String,
    pub width: usize,
    pub height: usize,
    /// A plane each of red, green and blue, 0 to 255.
    pub pixels: Vec<f32>,
}

impl Photo {
    /// The plane of red (0), green (1) or blue (2).
    pub fn channel(&self, channel: usize) -> &[f32] {
        let area = self.width * self.height;
        &self.pixels[channel * area..(channel + 1) * area]
    }
}

/// A photograph as its file has it, turned upright.
pub struct Original {
    name: String,
    image: DynamicImage,
}

pub fn bundled() -> Result<Vec<Original>> {
    let decode = |(name, file)| decode(String::from(name), ImageReader::new(Cursor::new(file)));
    BUNDLED.into_iter().map(decode).collect()
}

pub fn open(path: &Path) -> Result<Original> {
    let shown = path.display();
    ensure!(!path.is_dir(), "{shown} is a folder: name a JPEG or PNG");
    let reader = ImageReader::open(path).with_context(|| format!("cannot read {shown}"))?;
    let name = path.file_stem().unwrap_or(path.as_os_str());
    decode(printable(&name.to_string_lossy()), reader)
        .with_context(|| format!("cannot use {shown}"))
}

fn decode<R: BufRead + Seek>(name: String, mut reader: ImageReader<R>) -> Result<Original> {
    // What a file is, its first bytes say; its name may lie.
    reader.clear_format();
    // The limit is checked below, where the message can name it.
    reader.no_limits();
    let reader = reader.with_guessed_format()?;
    ensure!(reader.format().is_some(), "it is no JPEG or PNG");
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    ensure!(width > 0 && height > 0, "it has no pixels");
    let bytes = decoder.total_bytes();
    ensure!(
        bytes <= MAX_DECODED_BYTES,
        "it is {width} x {height} pixels, {} MiB when decoded, and the limit is {} MiB: give a \
         smaller one",
        bytes >> 20,
        MAX_DECODED_BYTES >> 20
    );
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(Original { name, image })
}

/// The largest size of the same shape that has so many pixels at most.
fn reduced((width, height): (u32, u32), max_pixels: u64) -> (u32, u32) {
    let pixels = f64::from(width) * f64::from(height);
    let factor = (max_pixels as f64 / pixels).sqrt();
    let most = u32::try_from(max_pixels).unwrap_or(u32::MAX);
    let scaled = |length: u32| ((f64::from(length) * factor) as u32).max(1);
    // A side of one pixel cannot give its share: the other is cut instead.
    let width = scaled(width).min(most);
    (width, scaled(height).min(most / width))
}

/// Brings all photographs to the size of the first, reduced to so many pixels at most (1 at least), and says in a
/// line what was done to each.
pub fn fit(originals: Vec<Original>, max_pixels: u64) -> Result<(Vec<Photo>, Vec<String>)> {
    let first = originals.first().context("no photograph was given")?;
    let mut size = first.image.dimensions();
    if u64::from(size.0) * u64::from(size.1) > max_pixels {
        size = reduced(size, max_pixels);
    }
    let (width, height) = size;
    let mut notes = Vec::new();
    let photos = originals.into_iter().map(|Original { name, mut image }| {
        let was = image.dimensions();
        if was != size {
            notes.push(format!(
                "{name} is {} x {}: resized and cropped to {width} x {height}",
                was.0, was.1
            ));
            image = image.resize_to_fill(width, height, FilterType::CatmullRom);
        }
        let image = image.to_rgb32f();
        let (width, height) = (width as usize, height as usize);
        let plane = |channel| image.pixels().map(move |pixel| 255.0 * pixel.0[channel]);
        let pixels = (0..3).flat_map(plane).collect();
        Photo {
            name,
            width,
            height,
            pixels,
        }
    });
    Ok((photos.collect(), notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbImage};

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut file = Vec::new();
        let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 9]));
        image
            .write_to(&mut Cursor::new(&mut file), ImageFormat::Png)
            .unwrap();
        file
    }

    fn original(width: u32, height: u32) -> Original {
        decoded(png(width, height))
    }

    fn decoded(file: Vec<u8>) -> Original {
        decode("p".into(), ImageReader::new(Cursor::new(file))).unwrap()
    }

    /// The only photograph, at its own size.
    fn single(original: Original) -> Photo {
        let (mut photos, notes) = fit(vec![original], u64::MAX).unwrap();
        assert!(photos.len() == 1 && notes.is_empty());
        photos.remove(0)
    }

    fn error(file: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        std::fs::write(&path, file).unwrap();
        format!("{:#}", open(&path).err().unwrap())
    }

    #[test]
    fn bundled_photographs_are_of_one_size() {
        let (photos, notes) = fit(bundled().unwrap(), u64::MAX).unwrap();
        assert_eq!(photos.len(), 4);
        assert!(notes.is_empty());
        for photo in &photos {
            assert_eq!((photo.width, photo.height), (288, 288));
            assert!(photo.pixels.iter().all(|v| (0.0..=255.0).contains(v)));
        }
    }

    #[test]
    fn pixels_lie_in_planes() {
        let photo = single(original(3, 2));
        assert_eq!(photo.channel(0), [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
        assert_eq!(photo.channel(1), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!(photo.channel(2), [9.0; 6]);
    }

    #[test]
    fn all_take_the_size_of_the_first() {
        let originals = vec![original(20, 10), original(7, 30), original(20, 10)];
        let (photos, notes) = fit(originals, u64::MAX).unwrap();
        assert!(photos.iter().all(|p| (p.width, p.height) == (20, 10)));
        assert_eq!(notes, ["p is 7 x 30: resized and cropped to 20 x 10"]);
    }

    #[test]
    fn what_is_too_large_is_reduced() {
        let (photos, notes) = fit(vec![original(40, 20)], 200).unwrap();
        assert_eq!((photos[0].width, photos[0].height), (20, 10));
        assert_eq!(notes, ["p is 40 x 20: resized and cropped to 20 x 10"]);
        for size in [(1, 5000), (5000, 1), (3, 4000), (4000, 3), (999, 1000)] {
            for pixels in [1, 2, 10, 100, 1000] {
                let (w, h) = reduced(size, pixels);
                assert!(w >= 1 && h >= 1);
                let fits = u64::from(w) * u64::from(h) <= pixels;
                assert!(fits, "{size:?} to {w} x {h}");
            }
        }
    }

    #[test]
    fn what_is_no_picture_is_refused_and_named() {
        for file in [&b""[..], b"P", b"just text, longer than any magic number"] {
            let error = error(file);
            assert!(error.contains("picture.png"), "{error}");
            assert!(error.contains("no JPEG or PNG"), "{error}");
        }
        let mut cut = png(30, 30);
        cut.truncate(cut.len() / 2);
        assert!(error(&cut).contains("picture.png"));
        let missing = open(Path::new("no/such/file.jpg")).err().unwrap();
        assert!(format!("{missing:#}").contains("no/such/file.jpg"));
        let folder = open(Path::new(".")).err().unwrap();
        assert!(folder.to_string().contains("folder"), "{folder}");
    }

    #[test]
    fn a_picture_bomb_is_refused() {
        // A header that promises 60,000 x 60,000 pixels.
        let mut file = png(1, 1);
        let side = 60_000u32.to_be_bytes();
        let header = [&b"IHDR"[..], &side, &side, &[8, 2, 0, 0, 0]].concat();
        file[12..29].copy_from_slice(&header);
        file[29..33].copy_from_slice(&crc32fast::hash(&header).to_be_bytes());
        let error = error(&file);
        assert!(error.contains("60000 x 60000"), "{error}");
    }

    #[test]
    fn photographs_are_turned_upright() {
        use image::ImageEncoder as _;
        use image::codecs::png::PngEncoder;
        // TIFF, little-endian, one entry: orientation (0x112), a short, 6: turn right.
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0".to_vec();
        exif.extend([0; 4]);
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        encoder.set_exif_metadata(exif).unwrap();
        let pixels = [[10; 3], [20; 3], [30; 3], [40; 3], [50; 3], [60; 3]].concat();
        let kind = image::ExtendedColorType::Rgb8;
        encoder.write_image(&pixels, 3, 2, kind).unwrap();
        let photo = single(decoded(file));
        assert_eq!((photo.width, photo.height), (2, 3));
        assert_eq!(photo.channel(0), [40.0, 10.0, 50.0, 20.0, 60.0, 30.0]);
    }

    #[test]
    fn a_name_may_lie_about_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.jpg");
        std::fs::write(&path, png(5, 4)).unwrap();
        let Original { name, image } = open(&path).unwrap();
        assert_eq!((name.as_str(), image.width()), ("photo", 5));
    }
}
