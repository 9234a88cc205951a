//! Network policies: nothing is open that nobody needs, and what the services need is open.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::objects::{Objects, Pod, selects};
use crate::programs::settings;
use crate::render;

const POSTGRESQL: i32 = 5432;
/// SMTP with TLS from the first byte, and with STARTTLS.
const MAIL: [i32; 2] = [465, 587];
const DNS: i32 = 53;

fn policies(objects: &Objects) -> impl Iterator<Item = (&str, &NetworkPolicySpec)> {
    objects
        .network_policies
        .iter()
        .map(|policy| (policy.metadata.name.as_deref().unwrap(), policy.spec.as_ref().unwrap()))
}

fn selector(spec: &NetworkPolicySpec) -> LabelSelector {
    spec.pod_selector.clone().unwrap_or_default()
}

/// The number of a port on a pod.
fn number(port: &NetworkPolicyPort, pod: &Pod<'_>) -> Option<i32> {
    match port.port.as_ref()? {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = pod.container().ports.iter().flatten();
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    }
}

/// Whether one of `peers` is this pod; no peers at all mean everybody.
fn includes(peers: &Option<Vec<NetworkPolicyPeer>>, pod: &Pod<'_>) -> bool {
    peers.as_ref().is_none_or(|peers| {
        peers.iter().any(|peer| {
            peer.namespace_selector.is_none()
                && peer.pod_selector.as_ref().is_some_and(|selector| selects(selector, pod.labels))
        })
    })
}

/// Whether `from` may open a connection to `port` of `to`, or of anybody.
fn may_leave(objects: &Objects, from: &Pod<'_>, to: Option<&Pod<'_>>, port: i32) -> bool {
    policies(objects).filter(|(_, spec)| selects(&selector(spec), from.labels)).any(|(_, spec)| {
        spec.egress.iter().flatten().any(|rule| {
            let peer = to.map_or(rule.to.is_none(), |to| includes(&rule.to, to));
            peer && rule.ports.iter().flatten().any(|open| open.port == Some(IntOrString::Int(port)))
        })
    })
}

/// Whether `port` of `to` takes a connection of `from`.
fn may_enter(objects: &Objects, from: &Pod<'_>, to: &Pod<'_>, port: i32) -> bool {
    policies(objects).filter(|(_, spec)| selects(&selector(spec), to.labels)).any(|(_, spec)| {
        spec.ingress.iter().flatten().any(|rule| {
            includes(&rule.from, from) && rule.ports.iter().flatten().any(|open| number(open, to) == Some(port))
        })
    })
}

#[test]
fn everything_is_denied_that_no_policy_allows() {
    for rendered in render::all() {
        let denies = policies(&rendered.objects).any(|(_, spec)| {
            let both = spec.policy_types.iter().flatten().map(String::as_str).eq(["Ingress", "Egress"]);
            both && selector(spec) == LabelSelector::default() && spec.ingress.is_none() && spec.egress.is_none()
        });
        assert!(denies, "{}: a policy for all pods, both types, without a rule", rendered.directory);
    }
}

#[test]
fn no_rule_is_wider_than_its_ports() {
    for rendered in render::all() {
        for (name, spec) in policies(&rendered.objects) {
            let pods = rendered.objects.selected(&selector(spec));
            assert!(!pods.is_empty(), "{}: {name} means no pod", rendered.directory);
            for rule in spec.ingress.iter().flatten() {
                assert!(
                    rule.from.as_ref().is_some_and(|from| !from.is_empty()),
                    "{}: {name}: from everybody",
                    rendered.directory
                );
                for (port, pod) in rule
                    .ports
                    .as_ref()
                    .expect("ports are named")
                    .iter()
                    .flat_map(|port| pods.iter().map(move |pod| (port, pod)))
                {
                    assert!(
                        number(port, pod).is_some(),
                        "{}: {name}: {port:?} is no port of {}",
                        rendered.directory,
                        pod.owner
                    );
                }
            }
            for rule in spec.egress.iter().flatten() {
                let ports: Vec<_> = rule.ports.iter().flatten().map(|port| port.port.clone()).collect();
                assert!(!ports.is_empty(), "{}: {name}: to every port", rendered.directory);
                let anywhere = rule.to.is_none();
                assert!(
                    !anywhere
                        || ports == [Some(IntOrString::Int(POSTGRESQL))]
                        || name == "auth-service" && ports == MAIL.map(|port| Some(IntOrString::Int(port))),
                    "{}: {name}: to anybody, other than PostgreSQL and mail: {ports:?}",
                    rendered.directory
                );
            }
        }
    }
}

#[tokio::test]
async fn the_services_reach_each_other_and_everybody_the_database() {
    for rendered in render::all() {
        let (directory, objects) = (rendered.directory, &rendered.objects);
        for pod in objects.pods() {
            assert!(may_leave(objects, &pod, None, POSTGRESQL), "{directory}: {} cannot reach PostgreSQL", pod.owner);
            let names = policies(objects).filter(|(_, spec)| selects(&selector(spec), pod.labels)).any(|(_, spec)| {
                spec.egress.iter().flatten().any(|rule| {
                    rule.ports.iter().flatten().filter(|port| port.port == Some(IntOrString::Int(DNS))).count() == 2
                })
            });
            assert!(names, "{directory}: {} cannot look up names", pod.owner);
        }
        let servers = objects.servers();
        for from in &servers {
            let settings = settings(objects, from).await;
            let to = servers.iter().find(|pod| pod.service() != from.service()).expect("two services");
            let variable = if to.service() == tests::Service::Auth { "AUTH_SERVICE_URL" } else { "TASK_SERVICE_URL" };
            let url = &settings[variable];
            let (host, port) =
                url.strip_prefix("http://").and_then(|url| url.split_once(':')).expect("http://HOST:PORT");
            let service = objects.services.iter().find(|service| service.metadata.name.as_deref() == Some(host));
            let spec = service
                .and_then(|service| service.spec.as_ref())
                .unwrap_or_else(|| panic!("{directory}: {variable}={url}: no such Service"));
            let selector = LabelSelector { match_labels: spec.selector.clone(), ..Default::default() };
            assert!(selects(&selector, to.labels), "{directory}: {variable}={url} leads to another service");
            let port: i32 = port.parse().unwrap();
            assert!(
                spec.ports.iter().flatten().any(|found| found.port == port),
                "{directory}: {variable}={url}: no such port"
            );
            assert!(may_leave(objects, from, Some(to), port), "{directory}: {} may not ask {}", from.owner, to.owner);
            assert!(may_enter(objects, from, to, port), "{directory}: {} takes no call of {}", to.owner, from.owner);
            let metrics =
                to.container().ports.iter().flatten().find(|port| port.name.as_deref() == Some("metrics")).unwrap();
            assert!(
                !may_enter(objects, from, to, metrics.container_port),
                "{directory}: metrics are for Prometheus alone"
            );
        }
        for (job, _) in objects.all_jobs() {
            for server in &servers {
                let port = server.container().ports.as_ref().unwrap()[0].container_port;
                assert!(!may_enter(objects, &job, server, port), "{directory}: {} calls nobody", job.owner);
            }
        }
    }
}
