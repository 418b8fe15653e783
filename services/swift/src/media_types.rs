//! The media type that a name suggests, for objects that come without one.

pub const BYTES: &str = "application/octet-stream";

#[rustfmt::skip]
const BY_ENDING: &[(&str, &str)] = &[
    ("avi", "video/x-msvideo"), ("bin", BYTES), ("bmp", "image/bmp"), ("bz2", "application/x-bzip2"),
    ("c", "text/plain"), ("css", "text/css"), ("csv", "text/csv"), ("doc", "application/msword"), ("eps", "application/postscript"),
    ("exe", BYTES), ("gif", "image/gif"), ("gz", "application/gzip"), ("h", "text/plain"), ("htm", "text/html"), ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"), ("iso", BYTES), ("jpeg", "image/jpeg"), ("jpg", "image/jpeg"), ("js", "text/javascript"),
    ("json", "application/json"), ("md", "text/markdown"), ("mjs", "text/javascript"), ("mov", "video/quicktime"), ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"), ("mpeg", "video/mpeg"), ("mpg", "video/mpeg"), ("pdf", "application/pdf"), ("pl", "text/plain"),
    ("png", "image/png"), ("ppt", "application/vnd.ms-powerpoint"), ("ps", "application/postscript"), ("py", "text/x-python"),
    ("rtf", "application/rtf"), ("sh", "application/x-sh"), ("so", BYTES), ("svg", "image/svg+xml"), ("swf", "application/x-shockwave-flash"),
    ("tar", "application/x-tar"), ("tif", "image/tiff"), ("tiff", "image/tiff"), ("tsv", "text/tab-separated-values"), ("txt", "text/plain"),
    ("wasm", "application/wasm"), ("wav", "audio/x-wav"), ("webm", "video/webm"), ("webp", "image/webp"), ("xls", "application/vnd.ms-excel"),
    ("xml", "text/xml"), ("zip", "application/zip"),
];

pub fn guess(name: &str) -> &'static str {
    let last = name.rsplit('/').next().unwrap_or(name);
    let Some((stem, ending)) = last.rsplit_once('.') else { return BYTES };
    let ending = ending.to_lowercase();
    let found = BY_ENDING.iter().find(|(known, _)| *known == ending && !stem.is_empty());
    found.map_or(BYTES, |(_, media_type)| media_type)
}
