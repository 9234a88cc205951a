//! What `kubectl kustomize` makes of the base and the overlays.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize as _;

use crate::assert_none;
use crate::objects::{Objects, take};

/// One rendered directory below deploy/kubernetes.
pub(crate) struct Rendered {
    pub(crate) directory: &'static str,
    pub(crate) objects: Objects,
}

const DIRECTORIES: [&str; 3] = ["base", "overlays/dev", "overlays/production"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A kubectl that is new enough, found or installed by `.ci/kubectl`.
fn kubectl() -> PathBuf {
    let output = Command::new("bash").arg(root().join(".ci/kubectl")).output().expect("bash runs .ci/kubectl");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "no kubectl to render deploy/kubernetes with: {}", stderr.trim());
    PathBuf::from(stdout.lines().last().unwrap())
}

/// The YAML of a directory.
fn yaml(kubectl: &Path, directory: &str) -> String {
    let path = root().join("deploy/kubernetes").join(directory);
    let output = Command::new(kubectl).arg("kustomize").arg(&path).output().expect("kubectl runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl kustomize deploy/kubernetes/{directory}: {stderr}");
    assert!(stderr.is_empty(), "kubectl kustomize deploy/kubernetes/{directory} warns: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Base and overlays, rendered once per test process; every object is one that its type describes completely.
pub(crate) fn all() -> &'static [Rendered] {
    static ALL: OnceLock<Vec<Rendered>> = OnceLock::new();
    ALL.get_or_init(|| {
        let kubectl = kubectl();
        DIRECTORIES.map(|directory| Rendered { directory, objects: read(directory, &yaml(&kubectl, directory)) }).into()
    })
}

/// One of them.
pub(crate) fn overlay(directory: &str) -> &'static Rendered {
    all().iter().find(|rendered| rendered.directory == directory).unwrap()
}

fn read(directory: &str, yaml: &str) -> Objects {
    let mut objects = Objects::default();
    let mut breaches = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let value = serde_json::Value::deserialize(document).unwrap();
        if let Err(breach) = take(&mut objects, &value) {
            breaches.push(format!("{directory}: {} {}: {breach}", value["kind"], value["metadata"]["name"]));
        }
    }
    assert_none(&breaches, "every field must be one that the Kubernetes API has; mend these:");
    objects
}

#[test]
fn every_object_is_one_that_its_type_describes() {
    for rendered in all() {
        let objects = &rendered.objects;
        assert_eq!(objects.deployments.len(), 2, "{}: a Deployment per service", rendered.directory);
        assert_eq!(objects.jobs.len(), 2, "{}: a migration Job per service", rendered.directory);
        assert_eq!(objects.cron_jobs.len(), 2, "{}: a verification CronJob per service", rendered.directory);
    }
}

#[test]
fn a_field_that_does_not_exist_is_seen() {
    let service = |field: &str| {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{field}: None}}");
        let value: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
        take(&mut Objects::default(), &value)
    };
    assert_eq!(service("clusterIP"), Ok(()));
    assert_eq!(service("clusterIp"), Err("not in the API, or not of this form: spec.clusterIp".to_owned()));
}

#[test]
fn an_object_of_another_kind_is_refused() {
    let value = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    assert!(take(&mut Objects::default(), &value).unwrap_err().contains("Secrets are made by hand"));
}
