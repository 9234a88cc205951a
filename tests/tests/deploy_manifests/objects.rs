//! Typed objects, and the pods among them whoever makes them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, PersistentVolumeClaim, PodSpec, PodTemplateSpec, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) type Labels = BTreeMap<String, String>;

/// The label that names the service.
pub(crate) const NAME: &str = "app.kubernetes.io/name";
/// The label that tells server, migration and verification apart.
pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";

macro_rules! objects {
    ($($field:ident: $kind:ident = $version:literal,)*) => {
        /// What a directory renders to.
        #[derive(Default)]
        pub(crate) struct Objects {
            $(pub(crate) $field: Vec<$kind>,)*
        }

        /// Puts an object where it belongs; says what of it its type does not know.
        pub(crate) fn take(objects: &mut Objects, value: &Value) -> Result<(), String> {
            match (value["apiVersion"].as_str().unwrap_or_default(), value["kind"].as_str().unwrap_or_default()) {
                $(($version, stringify!($kind)) => objects.$field.push(typed(value)?),)*
                ("v1", "Secret") => return Err("Secrets are made by hand and stand in no file".to_owned()),
                (version, kind) => return Err(format!("{version} {kind} is not known here: add it to objects.rs, with its rules")),
            }
            Ok(())
        }

        impl Objects {
            /// The metadata of every object, with its kind.
            pub(crate) fn metadata(&self) -> Vec<(&'static str, &ObjectMeta)> {
                let mut found = Vec::new();
                $(found.extend(self.$field.iter().map(|object| (stringify!($kind), &object.metadata)));)*
                found
            }
        }
    };
}

objects! {
    namespaces: Namespace = "v1",
    service_accounts: ServiceAccount = "v1",
    config_maps: ConfigMap = "v1",
    services: Service = "v1",
    claims: PersistentVolumeClaim = "v1",
    deployments: Deployment = "apps/v1",
    jobs: Job = "batch/v1",
    cron_jobs: CronJob = "batch/v1",
    autoscalers: HorizontalPodAutoscaler = "autoscaling/v2",
    budgets: PodDisruptionBudget = "policy/v1",
    network_policies: NetworkPolicy = "networking.k8s.io/v1",
}

fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, String> {
    let object: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let mut back = serde_json::to_value(&object).unwrap();
    for field in ["apiVersion", "kind"] {
        back[field] = value[field].clone();
    }
    let mut lost = Vec::new();
    compare(value, &back, "", &mut lost);
    if lost.is_empty() { Ok(object) } else { Err(format!("not in the API, or not of this form: {}", lost.join(", "))) }
}

/// Paths in `written` whose value is another one, or none, after a type has read and written it.
fn compare(written: &Value, back: &Value, path: &str, lost: &mut Vec<String>) {
    match (written, back) {
        (Value::Object(written), Value::Object(back)) => {
            for (key, value) in written {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(value, back.get(key).unwrap_or(&Value::Null), &path, lost);
            }
        }
        (Value::Array(written), Value::Array(back)) if written.len() == back.len() => {
            for (at, (written, back)) in written.iter().zip(back).enumerate() {
                compare(written, back, &format!("{path}[{at}]"), lost);
            }
        }
        _ if written == back => {}
        _ => lost.push(path.to_owned()),
    }
}

/// A pod template and who makes its pods.
pub(crate) struct Pod<'a> {
    /// `Deployment auth-service`
    pub(crate) owner: String,
    pub(crate) labels: &'a Labels,
    pub(crate) spec: &'a PodSpec,
}

impl<'a> Pod<'a> {
    fn new(kind: &str, metadata: &ObjectMeta, template: &'a PodTemplateSpec) -> Self {
        let owner = format!("{kind} {}", metadata.name.as_deref().unwrap());
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
        let labels = labels.unwrap_or_else(|| panic!("{owner}: its pods have no labels"));
        Self { owner, labels, spec: template.spec.as_ref().unwrap() }
    }

    /// The service whose image it runs.
    pub(crate) fn service(&self) -> tests::Service {
        match self.labels.get(NAME).map(String::as_str) {
            Some("auth-service") => tests::Service::Auth,
            Some("task-service") => tests::Service::Task,
            other => panic!("{}: label {NAME} is {other:?}; expected auth-service or task-service", self.owner),
        }
    }

    /// `server`, `migrate` or `verify`.
    pub(crate) fn component(&self) -> &str {
        self.labels.get(COMPONENT).unwrap_or_else(|| panic!("{}: label {COMPONENT} is missing", self.owner))
    }

    /// Its one container.
    pub(crate) fn container(&self) -> &'a Container {
        assert!(self.spec.init_containers.is_none(), "{}: pods wait by readiness, not by init containers", self.owner);
        match self.spec.containers.as_slice() {
            [container] => container,
            _ => panic!("{}: expected one container", self.owner),
        }
    }
}

impl Objects {
    /// Every Job there is or will be: those of the CronJobs as well.
    pub(crate) fn all_jobs(&self) -> Vec<(Pod<'_>, &JobSpec)> {
        let jobs = self.jobs.iter().map(|job| ("Job", &job.metadata, job.spec.as_ref().unwrap()));
        let cron_jobs = self
            .cron_jobs
            .iter()
            .map(|job| ("CronJob", &job.metadata, job.spec.as_ref().unwrap().job_template.spec.as_ref().unwrap()));
        jobs.chain(cron_jobs).map(|(kind, metadata, spec)| (Pod::new(kind, metadata, &spec.template), spec)).collect()
    }

    /// The pods of the Deployments.
    pub(crate) fn servers(&self) -> Vec<Pod<'_>> {
        self.deployments
            .iter()
            .map(|found| Pod::new("Deployment", &found.metadata, &found.spec.as_ref().unwrap().template))
            .collect()
    }

    /// Every pod.
    pub(crate) fn pods(&self) -> Vec<Pod<'_>> {
        self.servers().into_iter().chain(self.all_jobs().into_iter().map(|(pod, _)| pod)).collect()
    }

    /// The pods that a selector means; an empty one means all.
    pub(crate) fn selected(&self, selector: &LabelSelector) -> Vec<Pod<'_>> {
        self.pods().into_iter().filter(|pod| selects(selector, pod.labels)).collect()
    }
}

/// Whether a selector of plain labels means these.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    assert!(selector.match_expressions.is_none(), "only plain labels are used: {selector:?}");
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}
