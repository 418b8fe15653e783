//! The config drive: an ISO image with the instance's files, labelled as cloud-init looks for it.

use base::{Error, Result};
use host_run::run;
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Component, Path},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: [&str; 2] = ["genisoimage", "mkisofs"];

/// Writes the image; an image that is there is replaced in one go.
pub async fn write(image: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    let writer = WRITERS.into_iter().find(|writer| host_run::find(writer).is_some());
    let writer = writer.ok_or_else(|| Error::unavailable("genisoimage is not installed"))?;
    let tree = image.with_extension("tree");
    remove(&tree).await?;
    tokio::fs::create_dir_all(&tree).await?;
    tokio::fs::set_permissions(&tree, PermissionsExt::from_mode(0o700)).await?;
    for (name, text) in files {
        let file = tree.join(relative(name)?);
        if let Some(folder) = file.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        tokio::fs::write(&file, text).await?;
    }
    let part = image.with_extension("part");
    // Names as they are written, in the ISO's own table and in both of its extensions.
    run(writer)
        .args(["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-V", "config-2"])
        .arg("-o")
        .arg(&part)
        .arg(&tree)
        .timeout(PATIENCE)
        .output()
        .await?;
    // Passwords and user data are in it.
    tokio::fs::set_permissions(&part, PermissionsExt::from_mode(0o600)).await?;
    tokio::fs::rename(&part, image).await?;
    remove(&tree).await
}

/// A path that stays below the drive's root.
fn relative(name: &str) -> Result<&Path> {
    let path = Path::new(name);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !stays {
        return Err(Error::bad_request(format!("Invalid config drive path: {name}")));
    }
    Ok(path)
}

async fn remove(tree: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(tree).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        assert!(relative("openstack/latest/meta_data.json").is_ok());
        for wrong in ["", "/etc/passwd", "../x", "a/../../x"] {
            assert!(relative(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_image_is_written_twice_alike() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.config");
        let files = [("openstack/latest/meta_data.json".to_string(), "{\"x\": 1}".to_string())].into();
        for _ in 0..2 {
            write(&image, &files).await.unwrap();
        }
        let bytes = std::fs::read(&image).unwrap();
        let label = &bytes[16 * 2048 + 40..16 * 2048 + 48];
        assert_eq!(label, b"config-2");
        assert!(bytes.windows(8).any(|window| window == b"{\"x\": 1}"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }
}
