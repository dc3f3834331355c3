"""Faults between objects, configs and settings, each with the rule that must find it."""

import copy

from tests.deploy.seeding import fault, remove, set_setting, set_variable, volume, workload


@fault("shared_memory_holds_the_largest_batch")
def shared_memory_below_a_batch(c):
    volume(c, "triton-sam2", "shm")["sizeLimit"] = "64Mi"


@fault("sequences_move_before_the_end")
def tracker_only_sleeps_before_its_end(c):
    hook = workload(c, "triton-sam2").main["lifecycle"]["preStop"]["exec"]
    hook["command"] = ["sleep", "15"]


@fault("everything_is_in_one_namespace")
def object_in_another_namespace(c):
    c.find("PodDisruptionBudget", "orchestrator")["metadata"]["namespace"] = "default"


@fault("selectors_find_their_own_pods_alone")
def selector_that_misses_its_pods(c):
    workload(c, "triton-sam2").spec["selector"]["matchLabels"]["touchline.io/track"] = "stabel"


@fault("selectors_find_their_own_pods_alone")
def selector_that_takes_all_models(c):
    only = {"app.kubernetes.io/component": "model"}
    workload(c, "triton-sam2").spec["selector"]["matchLabels"] = only


@fault("pods_are_spread")
def spread_of_foreign_pods(c):
    spread = workload(c, "triton-sam2").pod["topologySpreadConstraints"][0]
    spread["labelSelector"]["matchLabels"]["touchline.io/model"] = "rfdetr_detector"


@fault("services_reach_ports")
def service_to_a_port_that_is_not_there(c):
    c.find("Service", "triton-rfdetr")["spec"]["ports"][1]["targetPort"] = "metric"


@fault("services_reach_ports")
def service_without_pods(c):
    c.find("Service", "recognition")["spec"]["selector"] = {"app.kubernetes.io/name": "nginx"}


@fault("budgets_protect_every_server")
def disruption_budget_of_nothing(c):
    c.find("PodDisruptionBudget", "envoy")["spec"]["selector"] = {"matchLabels": {"app": "no"}}


@fault("budgets_protect_every_server")
def two_disruption_budgets(c):
    twin = copy.deepcopy(c.find("PodDisruptionBudget", "triton-sam2"))
    twin["metadata"]["name"] = "twin"
    c.objects.append(twin)


@fault("rollouts_can_proceed")
def rollout_that_cannot_begin(c):
    workload(c, "envoy").spec["strategy"]["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": 0}


@fault("rollouts_can_proceed")
def no_replica(c):
    workload(c, "triton-siglip-text").spec["replicas"] = 0


@fault("accounts_have_least_rights")
def account_that_does_not_exist(c):
    remove(c, "ServiceAccount", "triton-resnet")


@fault("accounts_have_least_rights")
def more_rights_than_needed(c):
    c.find("Role", "orchestrator")["rules"][0]["resources"].append("secrets")


@fault("accounts_have_least_rights")
def rights_for_somebody_else(c):
    c.find("RoleBinding", "orchestrator")["subjects"][0]["name"] = "default"


@fault("accounts_have_least_rights")
def token_where_none_is_needed(c):
    workload(c, "triton-rfdetr").pod["automountServiceAccountToken"] = True


@fault("references_exist")
def config_map_that_does_not_exist(c):
    workload(c, "envoy").volume("config")["configMap"]["name"] = "envoy"


@fault("references_exist")
def secret_that_nobody_makes(c):
    remove(c, "Certificate", "triton-tls")


@fault("references_exist")
def claim_that_does_not_exist(c):
    store = workload(c, "triton-sam2").volume("store")
    store["persistentVolumeClaim"]["claimName"] = "touchline-artifacts"


@fault("who_holds_more_goes_later")
def tracker_evicted_first(c):
    workload(c, "triton-sam2").pod["priorityClassName"] = "touchline-model"


@fault("models_have_their_configs")
def config_that_does_not_exist(c):
    set_variable(workload(c, "triton-siglip-text"), "MODEL_CONFIG", "without_gpus")


@fault("models_have_the_processor_of_their_config")
def gpu_config_without_gpu(c):
    set_variable(workload(c, "triton-siglip-text"), "MODEL_CONFIG", "default")


@fault("artefacts_are_what_configs_name")
def weights_that_the_config_does_not_name(c):
    init = workload(c, "triton-sam2").pod["initContainers"][0]
    name = init["envFrom"][0]["configMapRef"]["name"]
    c.find("ConfigMap", name)["data"]["SAM2_WEIGHTS"] = "sam2.1-hiera-tiny"


@fault("artefacts_are_what_configs_name")
def weights_mounted_elsewhere(c):
    mounts = workload(c, "triton-sam2").main["volumeMounts"]
    next(m for m in mounts if m["name"] == "artefact")["mountPath"] = "/models/sam2/weights"


@fault("engines_are_built_for_their_models")
def engine_for_smaller_batches(c):
    arguments = workload(c, "engine-rfdetr-26-08-h200").main["args"]
    arguments[arguments.index("--max-batch=32")] = "--max-batch=16"


@fault("engines_are_built_for_their_models")
def engine_of_a_file_that_no_export_writes(c):
    workload(c, "engine-rfdetr-26-08-h200").main["args"][1] = "/store/exported/detector.fp32.onnx"


@fault("engines_are_built_for_their_models")
def engine_that_nobody_looks_for(c):
    arguments = workload(c, "engine-rfdetr-26-08-h200").main["args"]
    arguments[arguments.index("--output=/store/engines")] = "--output=/store/plans"


@fault("settings_are_known")
def setting_of_no_group(c):
    set_setting(c, "SERVERS__MAX_STREAMS", "32")


@fault("settings_are_valid")
def setting_out_of_range(c):
    set_setting(c, "SERVER__MAX_STREAMS", "0")


@fault("settings_are_valid")
def frames_may_take_more_memory_than_there_is(c):
    set_setting(c, "OVERLOAD__MEMORY_BYTES", str(8 << 30))


@fault("settings_are_valid")
def repair_without_model_control(c):
    set_setting(c, "TRITON__REPAIR_ATTEMPTS", "3")


@fault("pools_find_their_models")
def pool_of_a_service_that_does_not_exist(c):
    set_setting(c, "TRITON__URLS", c.settings["TOUCHLINE_TRITON__URLS"].replace("-sam2", "-sam3"))


@fault("pools_find_their_models")
def pools_crossed(c):
    urls = c.settings["TOUCHLINE_TRITON__URLS"].replace("triton-resnet", "triton-siglip")
    set_setting(c, "TRITON__URLS", urls)


@fault("pools_find_their_models")
def balanced_by_connection(c):
    del c.find("Service", "triton-rfdetr")["spec"]["clusterIP"]


@fault("there_is_time_to_start")
def killed_while_weights_load(c):
    workload(c, "triton-sam2").main["startupProbe"]["failureThreshold"] = 3


@fault("there_is_time_to_start")
def killed_while_waiting_for_models(c):
    set_setting(c, "TRITON__CONNECT_TIMEOUT_S", "3600")


@fault("trackers_have_room_for_the_streams")
def trackers_that_no_stream_can_reach(c):
    workload(c, "triton-sam2").spec["replicas"] = 50


@fault("needed_connections_pass")
def orchestrator_shut_out_from_models(c):
    c.find("NetworkPolicy", "models")["spec"]["ingress"].pop(0)


@fault("needed_connections_pass")
def orchestrator_without_dns(c):
    egress = c.find("NetworkPolicy", "orchestrator")["spec"]["egress"]
    egress[:] = [rule for rule in egress if rule["ports"][0]["port"] != 53]


@fault("nothing_else_passes")
def open_to_everybody(c):
    remove(c, "NetworkPolicy", "deny")
    remove(c, "NetworkPolicy", "models")


@fault("servers_listen_beyond_their_pod")
def metrics_inside_the_pod_alone(c):
    workload(c, "triton-sam2").main["args"].remove("--metrics-address=0.0.0.0")


@fault("servers_listen_beyond_their_pod")
def inference_inside_the_pod_alone(c):
    workload(c, "triton-sam2").main["args"].append("--grpc-address=127.0.0.1")


@fault("both_ends_speak_tls")
def one_model_in_the_clear(c):
    workload(c, "triton-resnet").main["args"].remove("--grpc-use-ssl-mutual=true")


@fault("both_ends_speak_tls")
def certificate_of_another_name(c):
    c.find("Certificate", "triton-tls")["spec"]["dnsNames"] = ["models.touchline.svc"]


@fault("the_public_port_is_protected")
def anybody_may_call(c):
    set_setting(c, "SECURITY__ALLOW_ANONYMOUS", "true")


@fault("the_public_port_is_protected")
def keys_without_tenants(c):
    environment = c.orchestrator.main["env"]
    environment[:] = [v for v in environment if "TENANTS" not in v["name"]]


@fault("files_of_secrets_are_mounted")
def keys_that_are_not_mounted(c):
    set_variable(c.orchestrator, "TOUCHLINE_SECURITY__API_KEYS_FILE", "/etc/api_keys")


@fault("the_proxy_finds_the_api")
def proxy_to_another_service(c):
    config = next(one for one in c.of("ConfigMap") if "envoy.yaml" in one["data"])
    text = config["data"]["envoy.yaml"]
    config["data"]["envoy.yaml"] = text.replace("orchestrator-headless", "orchestrators")


@fault("rollouts_can_proceed")
def trackers_one_by_one(c):
    workload(c, "triton-sam2").spec["strategy"]["rollingUpdate"]["maxSurge"] = 1
