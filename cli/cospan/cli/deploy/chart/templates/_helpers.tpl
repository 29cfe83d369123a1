{{/* Names */}}
{{- define "cospan.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "cospan.coordinatorAddress" -}}
{{ include "cospan.fullname" . }}-coordinator:15051
{{- end -}}

{{- define "cospan.selector" -}}
app.kubernetes.io/name: cospan
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "cospan.labels" -}}
{{ include "cospan.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* What the schema cannot check, in sentences */}}
{{- define "cospan.check" -}}
{{- $v := .Values -}}
{{- if gt (int $v.agents.groups) (int $v.run.agents) -}}
{{- fail (printf "agents.groups is %d, and run.agents only %d; each group hosts at least one agent" (int $v.agents.groups) (int $v.run.agents)) -}}
{{- end -}}
{{- if gt (int $v.run.agents) (mul 65536 (int $v.agents.groups)) -}}
{{- fail (printf "a group hosts at most 65536 agents; raise agents.groups, which is %d, for the %d of run.agents" (int $v.agents.groups) (int $v.run.agents)) -}}
{{- end -}}
{{- if gt (int $v.relays.count) (int $v.agents.groups) -}}
{{- fail (printf "relays.count is %d, and there are only %d groups of agents; lower it, or set 0" (int $v.relays.count) (int $v.agents.groups)) -}}
{{- end -}}
{{- range $name := list "agents" "coordinator" -}}
{{- if and (eq (int $v.run.rounds) 0) (eq (index $v $name "kind") "Job") -}}
{{- fail (printf "run.rounds is 0, so the run has no end, and a Job is not for that; set %s.kind to StatefulSet or Auto" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "agents" "rounds" "workload" "host" "port" "insecure" "runs-folder" "once" -}}
{{- if hasKey $v.run.settings $name -}}
{{- fail (printf "run.settings has %q, which the chart sets itself; see run.agents, run.rounds, run.workload and tls.enabled" $name) -}}
{{- end -}}
{{- end -}}
{{- if $v.tls.enabled -}}
{{- if $v.tls.certManager.enabled -}}
{{- if not $v.tls.certManager.issuerRef.name -}}
{{- fail "tls.certManager.issuerRef.name is empty; name an Issuer or ClusterIssuer of cert-manager" -}}
{{- end -}}
{{- else -}}
{{- $needed := list "coordinatorSecret" "agentSecret" -}}
{{- if $v.relays.count -}}{{- $needed = append $needed "relaySecret" -}}{{- end -}}
{{- if and $v.relays.count (eq (toString (index $v.run.settings "secure-sums")) "true") -}}{{- $needed = append $needed "upstreamSecret" -}}{{- end -}}
{{- if $v.metrics.serviceMonitor.enabled -}}{{- $needed = append $needed "observerSecret" -}}{{- end -}}
{{- range $needed -}}
{{- if not (index $v.tls .) -}}
{{- fail (printf "tls.enabled is true and tls.%s is empty; name a Secret with tls.crt, tls.key and ca.crt, or set tls.certManager.enabled" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Job where the run has an end, else StatefulSet. Of a dict with root and kind */}}
{{- define "cospan.kind" -}}
{{- if ne .kind "Auto" -}}{{ .kind }}
{{- else if .root.Values.run.rounds -}}Job
{{- else -}}StatefulSet
{{- end -}}
{{- end -}}

{{/* The name of a controller. That of a Job ends with a hash of its spec, for Kubernetes changes no Job: an upgrade
makes another, and removes this one. Of the dict of cospan.controller */}}
{{- define "cospan.controllerName" -}}
{{- $name := printf "%s-%s" (include "cospan.fullname" .root) .component -}}
{{- if eq .kind "Job" -}}{{ printf "%s-%s" $name (include "cospan.controllerSpec" . | sha256sum | trunc 8) }}
{{- else -}}{{ $name }}
{{- end -}}
{{- end -}}

{{/* A Job or a StatefulSet. Of a dict with root, kind, component, count, indexed, service, annotations and pod */}}
{{- define "cospan.controller" -}}
apiVersion: {{ ternary "batch/v1" "apps/v1" (eq .kind "Job") }}
kind: {{ .kind }}
metadata:
  name: {{ include "cospan.controllerName" . }}
  labels: {{- include "cospan.labels" . | nindent 4 }}
spec:
  {{- include "cospan.controllerSpec" . | nindent 2 }}
{{- end -}}

{{- define "cospan.controllerSpec" -}}
{{- $kube := .root.Capabilities.KubeVersion.Version -}}
{{- if eq .kind "Job" -}}
{{- if .indexed -}}
completionMode: Indexed
completions: {{ .count }}
parallelism: {{ .count }}
{{ end -}}
{{- if and .indexed (semverCompare ">=1.29.0-0" $kube) -}}
backoffLimitPerIndex: 20
{{- else -}}
backoffLimit: {{ mul 20 .count }}
{{- end }}
{{- if semverCompare ">=1.29.0-0" $kube }}
podFailurePolicy:
  rules:
    # Wrong usage: no repetition cures it.
    - action: FailJob
      onExitCodes: {containerName: {{ .component }}, operator: In, values: [2]}
    # Stopped by a signal before the run was over (EX_TEMPFAIL), or moved: neither is a failure.
    - action: Ignore
      onExitCodes: {containerName: {{ .component }}, operator: In, values: [75]}
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
{{- end }}
{{- else -}}
replicas: {{ .count }}
serviceName: {{ .service }}
podManagementPolicy: Parallel
selector:
  matchLabels: {{- include "cospan.selector" . | nindent 4 }}
{{- end }}
template:
  metadata:
    labels: {{- include "cospan.selector" . | nindent 6 }}
    {{- with .annotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: {{ ternary "Never" "Always" (eq .kind "Job") }}
    {{- .pod | nindent 4 }}
{{- end -}}

{{/* What all pods have. Of a dict with root, component and values */}}
{{- define "cospan.podFields" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne .component "coordinator" }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "cospan.selector" . | nindent 8 }}
{{- end }}
{{- end -}}

{{/* What all containers have. Of a dict with root, component, values, files (environment variable to file) */}}
{{- define "cospan.containerFields" -}}
name: {{ .component }}
image: {{ printf "%s:%s" .root.Values.image.repository (default .root.Chart.AppVersion .root.Values.image.tag) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with .values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .files .values.env }}
env:
  {{- range $name, $file := .files }}
  - {name: {{ $name }}, value: {{ $file }}}
  {{- end }}
  {{- with .values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The settings of a folder of certificates. Of a dict with prefix and folder */}}
{{- define "cospan.tlsFiles" -}}
{{ .prefix }}_CERT: {{ .folder }}/tls.crt
{{ .prefix }}_KEY: {{ .folder }}/tls.key
{{ .prefix }}_CA: {{ .folder }}/ca.crt
{{- end -}}

{{/* The Secret of an identity: the one that is named, or cert-manager's. Of a dict with root and identity */}}
{{- define "cospan.secret" -}}
{{- default (printf "%s-%s-tls" (include "cospan.fullname" .root) .identity) (index .root.Values.tls (printf "%sSecret" .identity)) -}}
{{- end -}}

{{/* Whose certificate relays present to the coordinator: one of relays, or that of the agents where none is named */}}
{{- define "cospan.upstreamIdentity" -}}
{{- if or .Values.tls.certManager.enabled .Values.tls.upstreamSecret -}}upstream{{- else -}}agent{{- end -}}
{{- end -}}

{{/* Probes of a listener. With TLS it asks for a certificate, which only a command can show. Of a dict with root and
restarted, whether one that does not answer is */}}
{{- define "cospan.probes" -}}
{{- $native := and (not .root.Values.tls.enabled) (semverCompare ">=1.27.0-0" .root.Capabilities.KubeVersion.Version) -}}
{{- $ask := ternary "grpc: {port: 15051}" "exec: {command: [python, /opt/healthcheck.py]}" $native -}}
startupProbe:
  {{ $ask }}
  periodSeconds: {{ ternary 2 15 $native }}
  timeoutSeconds: {{ ternary 2 10 $native }}
  failureThreshold: {{ ternary 150 20 $native }}
readinessProbe:
  {{ $ask }}
  periodSeconds: {{ ternary 5 15 $native }}
  timeoutSeconds: {{ ternary 2 10 $native }}
{{- if .restarted }}
livenessProbe:
  {{ $ask }}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}
{{- end -}}
