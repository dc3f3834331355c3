"""Faults within a pod, each with the rule that must find it."""

from tests.deploy.seeding import fault, set_setting, volume, workload


@fault("images_are_pinned_and_agree")
def latest_image(c):
    workload(c, "envoy").main["image"] = "envoyproxy/envoy:latest"


@fault("images_are_pinned_and_agree")
def init_container_of_another_version(c):
    workload(c, "triton-sam2").pod["initContainers"][0]["image"] = "touchline/sam2-tracker:0.0.9"


@fault("pods_are_restricted")
def root_user(c):
    del workload(c, "triton-rfdetr").pod["securityContext"]["runAsNonRoot"]


@fault("pods_are_restricted")
def writable_root(c):
    c.orchestrator.main["securityContext"]["readOnlyRootFilesystem"] = False


@fault("the_namespace_enforces_that")
def namespace_without_pod_security(c):
    del c.find("Namespace", "touchline")["metadata"]["labels"]


@fault("resources_are_guaranteed")
def gpu_requested_is_not_the_limit(c):
    workload(c, "triton-siglip").main["resources"]["requests"]["nvidia.com/gpu"] = 2


@fault("resources_are_guaranteed")
def memory_overcommitted(c):
    workload(c, "triton-sam2").main["resources"]["requests"]["memory"] = "1Gi"


@fault("resources_are_guaranteed")
def init_container_takes_another_kind_of_gpu(c):
    resources = workload(c, "triton-resnet").main["resources"]
    for part in resources.values():
        part["nvidia.com/mig-1g.18gb"] = part.pop("nvidia.com/gpu")


@fault("shared_memory_fits")
def shared_memory_over_the_limit(c):
    volume(c, "triton-sam2", "shm")["sizeLimit"] = "17Gi"


@fault("shared_memory_fits")
def shared_memory_on_disk(c):
    del volume(c, "triton-siglip", "shm")["medium"]


@fault("volumes_and_mounts_agree")
def mount_without_volume(c):
    workload(c, "triton-rfdetr").main["volumeMounts"][0]["name"] = "shmm"


@fault("probes_ask_what_is_there")
def probe_of_a_port_that_is_not_there(c):
    c.orchestrator.main["readinessProbe"]["httpGet"]["port"] = "http"


@fault("probes_ask_what_is_there")
def no_startup_probe(c):
    del workload(c, "triton-resnet").main["startupProbe"]


@fault("a_dead_model_is_restarted")
def liveness_by_tritons_own_page(c):
    page = {"path": "/v2/health/live", "port": "grpc"}
    workload(c, "triton-sam2").main["livenessProbe"] = {"httpGet": page}


@fault("a_dead_model_is_restarted")
def kubelet_gives_up_before_the_check(c):
    workload(c, "triton-sam2").main["livenessProbe"]["timeoutSeconds"] = 1


@fault("a_dead_model_is_restarted")
def models_can_be_unloaded(c):
    arguments = workload(c, "triton-siglip").main["args"]
    arguments[arguments.index("--model-control-mode=none")] = "--model-control-mode=explicit"


@fault("temporary_files_have_a_place")
def read_only_tmp(c):
    one = workload(c, "triton-sam2")
    for container in one.containers:
        container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] != "tmp"]
    one.pod["volumes"] = [v for v in one.pod["volumes"] if v["name"] != "tmp"]


@fault("scripts_are_in_the_image")
def hook_that_is_not_in_the_image(c):
    hook = workload(c, "triton-sam2").main["lifecycle"]["preStop"]["exec"]["command"]
    hook[1] = "/opt/touchline/drain.py"


@fault("there_is_time_to_end")
def hook_longer_than_grace(c):
    hook = workload(c, "triton-sam2").main["lifecycle"]["preStop"]["exec"]["command"]
    hook[hook.index("90")] = "120"


@fault("there_is_time_to_end")
def drain_longer_than_grace(c):
    set_setting(c, "SERVER__DRAIN_S", "900")


@fault("there_is_time_to_end")
def proxy_drains_longer_than_grace(c):
    workload(c, "envoy").pod["terminationGracePeriodSeconds"] = 60


@fault("endpoints_are_left_before_the_end")
def no_pre_stop_hook(c):
    del workload(c, "triton-rfdetr").main["lifecycle"]


@fault("endpoints_are_left_before_the_end")
def idle_proxy_that_ends_at_once(c):
    command = workload(c, "envoy").main["lifecycle"]["preStop"]["exec"]["command"]
    command[-1] = command[-1].replace("sleep 30\n", "")


@fault("a_lost_node_is_given_up_soon")
def server_without_tolerations(c):
    del c.orchestrator.pod["tolerations"]


@fault("a_lost_node_is_given_up_soon")
def gpu_toleration_in_place_of_the_others(c):
    pod = workload(c, "triton-sam2").pod
    pod["tolerations"] = [one for one in pod["tolerations"] if one["key"] == "nvidia.com/gpu"]
