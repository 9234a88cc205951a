//! What belongs together: a Deployment with its Service, autoscaler and budget; a reference with what it names.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::SecretKeySelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::assert_none;
use crate::objects::{COMPONENT, Objects, Pod, selects};
use crate::render;

/// Runs `find` on base and overlays; each breach is named with its directory.
fn for_each_directory(fix: &str, find: impl Fn(&Objects) -> Vec<String>) {
    let mut breaches = Vec::new();
    for rendered in render::all() {
        breaches.extend(find(&rendered.objects).into_iter().map(|breach| format!("{}: {breach}", rendered.directory)));
    }
    assert_none(&breaches, fix);
}

/// Whether a selector means the pods of this owner and no others.
fn means_only(objects: &Objects, selector: &LabelSelector, owner: &str) -> bool {
    objects.selected(selector).iter().map(|pod| pod.owner.as_str()).eq([owner])
}

#[test]
fn every_deployment_has_its_service_autoscaler_and_budget() {
    for_each_directory("a Deployment comes with all of these:", |objects| {
        let mut breaches = Vec::new();
        for deployment in &objects.deployments {
            let (name, spec) = (deployment.metadata.name.as_deref().unwrap(), deployment.spec.as_ref().unwrap());
            let owner = format!("Deployment {name}");
            let labels =
                |labels: &Option<BTreeMap<_, _>>| LabelSelector { match_labels: labels.clone(), ..Default::default() };
            let services = objects.services.iter().filter(|service| {
                let spec = service.spec.as_ref().unwrap();
                means_only(objects, &labels(&spec.selector), &owner) && spec.cluster_ip.as_deref() == Some("None")
            });
            let budgets = objects.budgets.iter().filter(|budget| {
                let spec = budget.spec.as_ref().unwrap();
                spec.selector.as_ref().is_some_and(|selector| means_only(objects, selector, &owner))
                    && spec.max_unavailable == Some(IntOrString::Int(1))
            });
            let autoscalers = objects.autoscalers.iter().filter(|autoscaler| {
                let spec = autoscaler.spec.as_ref().unwrap();
                let target = &spec.scale_target_ref;
                (target.api_version.as_deref(), target.kind.as_str(), target.name.as_str())
                    == (Some("apps/v1"), "Deployment", name)
                    && spec.min_replicas.is_some_and(|least| (1..=spec.max_replicas).contains(&least))
            });
            let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
            let rules = [
                (means_only(objects, &spec.selector, &owner), "a selector that means its own pods alone"),
                (services.count() == 1, "one headless Service that means its pods alone"),
                (budgets.count() == 1, "one PodDisruptionBudget that means its pods alone, with maxUnavailable: 1"),
                (autoscalers.count() == 1, "one HorizontalPodAutoscaler"),
                (spec.replicas.is_none(), "no replicas: the HorizontalPodAutoscaler owns the number"),
                (
                    rolling.is_some_and(|rolling| rolling.max_unavailable == Some(IntOrString::Int(0))),
                    "rolling update, maxUnavailable: 0",
                ),
                (
                    rolling.is_some_and(|rolling| rolling.max_surge == Some(IntOrString::String("100%".to_owned()))),
                    "rolling update, maxSurge: 100%",
                ),
            ];
            breaches.extend(rules.iter().filter(|(held, _)| !held).map(|(_, rule)| format!("{owner}: {rule}")));
        }
        breaches
    });
}

#[test]
fn service_ports_are_ports_of_the_pods() {
    for_each_directory("a Service leads to ports that its pods name, under the same number:", |objects| {
        let mut breaches = Vec::new();
        for service in &objects.services {
            let spec = service.spec.as_ref().unwrap();
            let selector = LabelSelector { match_labels: spec.selector.clone(), ..Default::default() };
            for port in spec.ports.iter().flatten() {
                for pod in objects.selected(&selector) {
                    // Clients of a headless Service connect to the pods: its own port number means nothing to them.
                    let found = pod.container().ports.iter().flatten().any(|found| {
                        found.name.as_ref().map(|name| IntOrString::String(name.clone())) == port.target_port
                            && found.container_port == port.port
                    });
                    if !found {
                        breaches
                            .push(format!("{:?}: {:?} is no port of {}", service.metadata.name, port.name, pod.owner));
                    }
                }
            }
        }
        breaches
    });
}

#[test]
fn every_pod_has_an_identity_of_its_own() {
    for_each_directory("a ServiceAccount per pod, without a token:", |objects| {
        let mut breaches = Vec::new();
        let mut taken = BTreeSet::new();
        for pod in objects.pods() {
            let name = pod.spec.service_account_name.clone().unwrap_or_default();
            let account = objects.service_accounts.iter().find(|account| account.metadata.name.as_ref() == Some(&name));
            if account.is_none_or(|account| account.automount_service_account_token != Some(false)) {
                breaches.push(format!("{}: ServiceAccount {name:?} is missing, or mounts its token", pod.owner));
            }
            if !taken.insert(name.clone()) {
                breaches.push(format!("{}: ServiceAccount {name} is another's, too", pod.owner));
            }
        }
        breaches
    });
}

/// The Secret and key behind each variable of a pod.
fn secrets(pod: &Pod<'_>) -> Vec<(String, SecretKeySelector)> {
    let variables = pod.container().env.iter().flatten();
    let secret =
        variables.filter_map(|variable| Some((variable.name.clone(), variable.value_from.clone()?.secret_key_ref?)));
    secret.collect()
}

#[test]
fn only_migration_jobs_hold_the_migrators_password() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/DEPLOY.md")).unwrap();
    for_each_directory(
        "each role's password is given to who acts in it, and docs/DEPLOY.md says how to make the Secret:",
        |objects| {
            let mut breaches = Vec::new();
            for pod in objects.pods() {
                let role = if pod.component() == "migrate" { "migrator" } else { "runtime" };
                let expected = format!("{}-{role}", pod.service().name());
                let secrets = secrets(&pod);
                if !secrets.iter().any(|(variable, _)| variable == "DATABASE_URL") {
                    breaches.push(format!("{}: DATABASE_URL comes from no Secret", pod.owner));
                }
                for (variable, secret) in secrets {
                    if secret.name != expected || secret.key != variable {
                        breaches.push(format!(
                            "{}: {variable} from {} {}; expected {expected} {variable}",
                            pod.owner, secret.name, secret.key
                        ));
                    }
                    if !guide.contains(&format!("create secret generic {expected} "))
                        || !guide.contains(&format!("--from-literal={variable}="))
                    {
                        breaches.push(format!("docs/DEPLOY.md does not make {variable} of the Secret {expected}"));
                    }
                }
            }
            breaches
        },
    );
}

#[test]
fn what_pods_refer_to_is_there() {
    for_each_directory("make what is referred to, or correct the name:", |objects| {
        let mut breaches = Vec::new();
        let map = |name: &str| objects.config_maps.iter().any(|map| map.metadata.name.as_deref() == Some(name));
        let claim = |name: &str| objects.claims.iter().any(|claim| claim.metadata.name.as_deref() == Some(name));
        for pod in objects.pods() {
            let sources = pod.container().env_from.iter().flatten();
            for source in
                sources.filter_map(|source| source.config_map_ref.as_ref()).filter(|source| !map(&source.name))
            {
                breaches.push(format!("{}: ConfigMap {}", pod.owner, source.name));
            }
            let volumes: Vec<_> = pod.spec.volumes.iter().flatten().collect();
            for volume in &volumes {
                match (&volume.config_map, &volume.persistent_volume_claim, &volume.empty_dir) {
                    (Some(source), _, _) if source.optional == Some(true) || map(&source.name) => {}
                    (_, Some(source), _) if claim(&source.claim_name) => {}
                    (_, _, Some(_)) => {}
                    _ => breaches.push(format!("{}: volume {}", pod.owner, volume.name)),
                }
            }
            for mount in pod.container().volume_mounts.iter().flatten() {
                if !volumes.iter().any(|volume| volume.name == mount.name) {
                    breaches.push(format!("{}: mount of {}", pod.owner, mount.name));
                }
            }
        }
        breaches
    });
}

#[test]
fn backups_go_to_a_volume_that_stays() {
    for_each_directory("--backup-dir of a migration Job must be where its claim is mounted:", |objects| {
        let mut breaches = Vec::new();
        for (pod, _) in objects.all_jobs().into_iter().filter(|(pod, _)| pod.component() == "migrate") {
            let arguments = pod.container().args.clone().unwrap_or_default();
            let at =
                arguments.iter().position(|argument| argument == "--backup-dir").and_then(|at| arguments.get(at + 1));
            let claims = pod.spec.volumes.iter().flatten().filter(|volume| volume.persistent_volume_claim.is_some());
            let mounted = claims.filter_map(|claim| {
                let mut mounts = pod.container().volume_mounts.iter().flatten();
                mounts
                    .find(|mount| mount.name == claim.name && mount.read_only != Some(true))
                    .map(|mount| &mount.mount_path)
            });
            if at.is_none() || mounted.collect::<Vec<_>>() != at.into_iter().collect::<Vec<_>>() {
                breaches.push(format!("{}: {arguments:?}", pod.owner));
            }
        }
        breaches
    });
}

#[test]
fn every_pod_runs_the_image_that_it_needs() {
    for_each_directory("`service` has no pg_dump, `migrate` has; see deploy/Dockerfile:", |objects| {
        let mut breaches = Vec::new();
        for pod in objects.pods() {
            let image = pod.container().image.clone().unwrap_or_default();
            let name = image.rsplit('/').next().unwrap().split(['@', ':']).next().unwrap();
            let expected = pod.service().name().to_owned() + if pod.component() == "migrate" { "-migrate" } else { "" };
            if name != expected {
                breaches.push(format!("{}: {image}; expected {expected}", pod.owner));
            }
        }
        breaches
    });
    for pod in render::overlay("overlays/production").objects.pods() {
        let image = pod.container().image.clone().unwrap_or_default();
        let digest = image.split_once("@sha256:").map(|(_, digest)| digest.len());
        assert_eq!(digest, Some(64), "{}: production images are pinned by digest, not {image}", pod.owner);
    }
}

#[test]
fn overlays_live_in_a_namespace_that_refuses_privileges() {
    for directory in ["overlays/dev", "overlays/production"] {
        let objects = &render::overlay(directory).objects;
        let [namespace] = objects.namespaces.as_slice() else { panic!("{directory}: expected one Namespace") };
        let level =
            namespace.metadata.labels.as_ref().and_then(|labels| labels.get("pod-security.kubernetes.io/enforce"));
        assert_eq!(level.map(String::as_str), Some("restricted"), "{directory}");
        for (kind, metadata) in objects.metadata().into_iter().filter(|(kind, _)| *kind != "Namespace") {
            assert_eq!(metadata.namespace, namespace.metadata.name, "{directory}: {kind} {:?}", metadata.name);
        }
    }
}

#[test]
fn production_survives_the_loss_of_a_node() {
    let objects = &render::overlay("overlays/production").objects;
    for autoscaler in &objects.autoscalers {
        let least = autoscaler.spec.as_ref().unwrap().min_replicas.unwrap_or(1);
        assert!(least >= 3, "{:?}: minReplicas {least}; expected 3 or more", autoscaler.metadata.name);
    }
    for pod in objects.servers() {
        let constraints: Vec<_> = pod.spec.topology_spread_constraints.iter().flatten().collect();
        let keys: Vec<_> = constraints.iter().map(|constraint| constraint.topology_key.as_str()).collect();
        assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"], "{}", pod.owner);
        for constraint in constraints {
            let selector = constraint.label_selector.as_ref().unwrap();
            assert!(selects(selector, pod.labels), "{}: the constraint does not count its own pods", pod.owner);
            let by: Vec<_> = constraint.match_label_keys.iter().flatten().map(String::as_str).collect();
            assert_eq!(
                by,
                ["app.kubernetes.io/name", "pod-template-hash"],
                "{}: counted per service and release",
                pod.owner
            );
        }
        assert_eq!(pod.labels.get(COMPONENT).map(String::as_str), Some("server"));
    }
}
