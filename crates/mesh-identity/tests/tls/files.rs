use crate::world::*;
use mesh_core::Publisher;
use mesh_core::model::{
    ClientTls, Cluster, Secret, SecretName, SecretRef, SecretSource, Snapshot, SnapshotBuilder,
};
use mesh_identity::{Files, MAX_CERTIFICATE_BYTES, check_secret, system_roots};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Mounted {
    directory: TempDir,
    snapshot: Arc<Snapshot>,
    files: Files,
    named: SecretRef,
    generation: usize,
}

impl Mounted {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (certificate, key) = (
            directory.path().join("tls.crt"),
            directory.path().join("tls.key"),
        );
        let named = SecretRef::local(
            SecretName::CertificateFiles {
                certificate: certificate.to_str().unwrap(),
                key: key.to_str().unwrap(),
            }
            .to_name(),
        );
        let (snapshot, files) = following(std::slice::from_ref(&named));
        Self {
            directory,
            snapshot,
            files,
            named,
            generation: 0,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn published(&self) -> Option<Arc<Secret>> {
        let live = self.snapshot.secret(&self.named).unwrap();
        (*live.value().load()).clone()
    }

    /// As the kubelet does: a directory of its own for each generation, a link to it that is
    /// replaced by a rename, links to files through that.
    fn swap(&mut self, leaf: &Leaf) {
        self.generation += 1;
        let name = format!("..{}", self.generation);
        let inside = self.path().join(&name);
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("tls.crt"), &leaf.chain).unwrap();
        fs::write(inside.join("tls.key"), &leaf.key).unwrap();
        let temporary = self.path().join("..data_tmp");
        symlink(&name, &temporary).unwrap();
        fs::rename(&temporary, self.path().join("..data")).unwrap();
        if self.generation == 1 {
            for file in ["tls.crt", "tls.key"] {
                symlink(format!("..data/{file}"), self.path().join(file)).unwrap();
            }
        } else {
            let old = format!("..{}", self.generation - 1);
            fs::remove_dir_all(self.path().join(old)).unwrap();
        }
    }
}

fn following(names: &[SecretRef]) -> (Arc<Snapshot>, Files) {
    let mut tls = ClientTls::default();
    tls.certificates = names.to_vec();
    let mut cluster = Cluster::new("all");
    cluster.tls = Some(Arc::new(tls));
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    let (snapshot, _) = builder.build().unwrap();
    let feed = Publisher::from_arc(snapshot.clone()).feed();
    (snapshot, Files::new(feed))
}

#[tokio::test]
async fn a_swapped_link_is_followed() {
    let authority = Authority::new("ca");
    let mut mounted = Mounted::new();
    mounted.files.refresh().await;
    assert_eq!(mounted.published(), None);
    for _ in 0..3 {
        let leaf = authority.leaf(&["a.test"]);
        mounted.swap(&leaf);
        mounted.files.refresh().await;
        assert!(mounted.published().as_deref() == Some(&leaf.secret()));
    }
}

#[tokio::test]
async fn a_pair_that_does_not_fit_waits_for_its_other_half() {
    let authority = Authority::new("ca");
    let (one, two) = (authority.leaf(&["a.test"]), authority.leaf(&["b.test"]));
    let mut mounted = Mounted::new();
    let replace = |mounted: &Mounted, file: &str, text: &str| {
        let temporary = mounted.path().join("tmp");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, mounted.path().join(file)).unwrap();
    };
    replace(&mounted, "tls.crt", &one.chain);
    replace(&mounted, "tls.key", &one.key);
    mounted.files.refresh().await;
    assert!(mounted.published().as_deref() == Some(&one.secret()));
    replace(&mounted, "tls.crt", &two.chain);
    mounted.files.refresh().await;
    assert!(mounted.published().as_deref() == Some(&one.secret()));
    replace(&mounted, "tls.key", &two.key);
    mounted.files.refresh().await;
    assert!(mounted.published().as_deref() == Some(&two.secret()));
    // What is gone, too large or no file at all changes nothing.
    fs::remove_file(mounted.path().join("tls.key")).unwrap();
    mounted.files.refresh().await;
    fs::create_dir(mounted.path().join("tls.key")).unwrap();
    mounted.files.refresh().await;
    replace(&mounted, "tls.crt", &"\n".repeat(MAX_CERTIFICATE_BYTES + 1));
    fs::remove_dir(mounted.path().join("tls.key")).unwrap();
    replace(&mounted, "tls.key", &two.key);
    mounted.files.refresh().await;
    assert!(mounted.published().as_deref() == Some(&two.secret()));
    replace(&mounted, "tls.crt", &two.chain);
    replace(&mounted, "tls.key", &two.key);
    mounted.files.refresh().await;
    assert!(mounted.published().as_deref() == Some(&two.secret()));
}

#[tokio::test]
async fn roots_and_lists_of_revoked_certificates_are_read() {
    let authority = Authority::new("ca");
    let directory = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let revoked = authority.revokes(&[7], 4000);
    let root = file("ca.pem", authority.0.pem().as_bytes());
    let list = file("crl.pem", &revoked);
    let named = [
        SecretRef::local(SecretName::RootFile(&root).to_name()),
        SecretRef::local(SecretName::RevokedFile(&list).to_name()),
        // Somebody else provides this one, whatever its name says.
        SecretRef {
            name: SecretName::RootFile(&root).to_name(),
            source: SecretSource::ControlPlane {
                initial_fetch_timeout: Duration::ZERO,
            },
        },
    ];
    let (snapshot, mut files) = following(&named);
    files.refresh().await;
    let published = |at: usize| {
        let live = snapshot.secret(&named[at]).unwrap();
        (*live.value().load()).clone()
    };
    assert!(published(0).as_deref() == Some(&authority.trust()));
    let lists = Secret::Trust {
        roots: Vec::new(),
        revoked,
    };
    assert!(published(1).as_deref() == Some(&lists));
    assert_eq!(published(2), None);
}

#[tokio::test(start_paused = true)]
async fn running_follows_the_files_until_it_is_dropped() {
    let authority = Authority::new("ca");
    let mut mounted = Mounted::new();
    mounted.swap(&authority.leaf(&["a.test"]));
    let (snapshot, files) = following(std::slice::from_ref(&mounted.named));
    let mut value = snapshot.secret(&mounted.named).unwrap().value();
    let running = tokio::spawn(files.run());
    value.changed().await.unwrap();
    mounted.swap(&authority.leaf(&["b.test"]));
    value.changed().await.unwrap();
    running.abort();
}

#[test]
fn the_roots_of_the_system_can_be_used_if_there_are_any() {
    if let Ok(roots) = system_roots() {
        assert_eq!(check_secret(&roots), Ok(()));
    }
}
