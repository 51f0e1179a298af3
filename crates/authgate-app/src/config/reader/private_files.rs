//! Warnings about files with keys and secrets that every user of this machine can read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use authgate_dataplane::file;

use super::Item;

/// Files of certs-example: they are published, so they need no protection. `run` refuses them.
const PUBLISHED: [&[u8]; 5] = [
    include_bytes!("../../../../../certs-example/localhost.key"),
    include_bytes!("../../../../../certs-example/jwt-hs256.secret"),
    include_bytes!("../../../../../certs-example/jwt-es256.key"),
    include_bytes!("../../../../../certs-example/jwt-rs256.key"),
    include_bytes!("../../../../../certs-example/jwt-eddsa.key"),
];

impl Item<'_> {
    /// Warns if every user can read this file, which holds a key or a secret.
    pub(crate) fn warn_if_readable_by_all(&self, file: &Path) {
        if !is_readable_by_all(file) || file::read(file).is_ok_and(|content| PUBLISHED.contains(&content.as_slice())) {
            return;
        }
        let shown = file.display();
        let problem = self.problem(
            format!("{shown}: every user of this machine can read this file, and it holds a key or a secret"),
            format!("let only the user of the gateway read it: `chmod 600 {shown}`"),
        );
        self.add(problem.into_warning().into_machine());
    }
}

/// Whether others than the owner and the group can read a file: its own permission and the ones of all folders above it allow it.
fn is_readable_by_all(file: &Path) -> bool {
    const READ: u32 = 0o004;
    const ENTER: u32 = 0o001;
    let allows = |path: &Path, permission| {
        fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & permission != 0)
    };
    // The folders of the file that symbolic links lead to decide too.
    let Ok(file) = fs::canonicalize(file) else { return false };
    allows(&file, READ) && file.ancestors().skip(1).all(|folder| allows(folder, ENTER))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn folders_restrict_a_file_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.key");
        fs::write(&file, "").expect("written");
        for (folder_mode, file_mode, expected) in [
            (0o755, 0o644, true),
            (0o711, 0o604, true),
            (0o755, 0o640, false),
            (0o755, 0o600, false),
            (0o700, 0o644, false),
            (0o750, 0o644, false),
        ] {
            fs::set_permissions(&file, Permissions::from_mode(file_mode)).expect("ours");
            fs::set_permissions(folder.path(), Permissions::from_mode(folder_mode)).expect("ours");
            assert_eq!(is_readable_by_all(&file), expected, "{folder_mode:o} {file_mode:o}");
        }
    }
}
