{{- define "foghorn.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- /* What names of objects begin with: `foghorn`, unless several releases are told apart by fullnameOverride. */}}
{{- define "foghorn.fullname" -}}
{{- default (include "foghorn.name" .) .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- /* Labels by which Pods are selected. Takes a dict of `root` and `component`. */}}
{{- define "foghorn.selector" -}}
app.kubernetes.io/name: {{ include "foghorn.name" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "foghorn.labels" -}}
{{ include "foghorn.selector" . }}
app.kubernetes.io/part-of: foghorn
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "foghorn.image" -}}
{{- include "foghorn.imageName" (dict "root" . "image" .Values.image) }}
{{- end }}

{{- /* Takes a dict of `root` and `image`: repository, tag, digest. */}}
{{- define "foghorn.imageName" -}}
{{- with .image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.root.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* Whether the proxy has the programs of iptables: to forward with them, or to remove what such a mode left. */}}
{{- define "foghorn.proxyHasIptables" -}}
{{- if or (eq .Values.proxy.dataplane "iptables") .Values.proxy.iptablesPrograms }}true{{ end }}
{{- end }}

{{- /* The image of the proxy: with iptables, the one that has its programs too. */}}
{{- define "foghorn.proxyImage" -}}
{{- $image := deepCopy .Values.image }}
{{- $own := .Values.proxy.image }}
{{- if $own.repository }}{{ $_ := set $image "repository" $own.repository }}{{ end }}
{{- if or $own.tag $own.digest }}
{{- $_ := set $image "tag" $own.tag }}
{{- $_ := set $image "digest" $own.digest }}
{{- else if include "foghorn.proxyHasIptables" . }}
{{- if $image.digest }}
{{- fail "proxy.image.digest is missing: with proxy.dataplane=iptables or proxy.iptablesPrograms=true the proxy has an image of its own, which has the programs of iptables, and image.digest is another one's" }}
{{- end }}
{{- $_ := set $image "tag" (printf "%s-iptables" (default .Chart.AppVersion $image.tag)) }}
{{- end }}
{{- include "foghorn.imageName" (dict "root" . "image" $image) }}
{{- end }}

{{- define "foghorn.serviceAccount" -}}
{{- $fullname := printf "%s-%s" (include "foghorn.fullname" .root) .component }}
{{- with index .root.Values .component "serviceAccount" }}
{{- if .create }}{{ default $fullname .name }}{{ else }}{{ default "default" .name }}{{ end }}
{{- end }}
{{- end }}

{{- define "foghorn.secretName" -}}
{{- default (printf "%s-heartbeat" (include "foghorn.fullname" .)) .Values.speaker.secretName }}
{{- end }}

{{- /* Annotations of a Pod. Takes a dict of `root`, `component`, `port`. */}}
{{- define "foghorn.podAnnotations" -}}
{{- $annotations := dict }}
{{- with .root.Values }}
{{- if and .prometheus.enabled .prometheus.scrapeAnnotations }}
{{- $_ := set $annotations "prometheus.io/scrape" "true" }}
{{- $_ := set $annotations "prometheus.io/port" (toString $.port) }}
{{- if include "foghorn.tlsSecret" $ }}
{{- $_ := set $annotations "prometheus.io/scheme" "https" }}
{{- end }}
{{- end }}
{{- end }}
{{- $annotations = mergeOverwrite $annotations (index .root.Values .component "podAnnotations") }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A ServiceAccount. Takes a dict of `root` and `component`. */}}
{{- define "foghorn.account" -}}
{{- $account := index .root.Values .component "serviceAccount" }}
{{- if $account.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "foghorn.serviceAccount" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "foghorn.labels" . | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* A binding of the ClusterRole of a component. Takes a dict of `root` and `component`. */}}
{{- define "foghorn.binding" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "foghorn.fullname" .root }}-{{ .component }}
  labels:
    {{- include "foghorn.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "foghorn.fullname" .root }}-{{ .component }}
subjects:
  - kind: ServiceAccount
    name: {{ include "foghorn.serviceAccount" . }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{- /* The components that this release runs, as a JSON array. */}}
{{- define "foghorn.components" -}}
{{- $components := list "controller" }}
{{- if .Values.speaker.enabled }}{{ $components = append $components "speaker" }}{{ end }}
{{- if .Values.proxy.enabled }}{{ $components = append $components "proxy" }}{{ end }}
{{- toJson $components }}
{{- end }}

{{- /* Where a component serves its metrics. Takes its name. */}}
{{- define "foghorn.metricsPort" -}}
{{- get (dict "controller" 7472 "speaker" 7474 "proxy" 10249) . }}
{{- end }}

{{- /* The Secret with the certificate of a component's metrics; nothing if they are served in clear text. Takes a dict of
       `root` and `component`. */}}
{{- define "foghorn.tlsSecret" -}}
{{- index .root.Values.prometheus (printf "%sMetricsTLSSecret" .component) }}
{{- end }}

{{- /* How a component is scraped, for either kind of monitor. Takes a dict of `root`, `values` and `component`. */}}
{{- define "foghorn.scrape" -}}
{{- if include "foghorn.tlsSecret" . }}
scheme: https
{{- with .values.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .values.interval }}
interval: {{ . }}
{{- end }}
relabelings:
  # Alerts and dashboard tell the programs apart by these, however they are scraped.
  - {targetLabel: job, replacement: foghorn-{{ .component }}}
  {{- if ne .component "controller" }}
  - {sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: instance}
  {{- else }}
  - {sourceLabels: [__meta_kubernetes_pod_name], targetLabel: instance}
  {{- end }}
  {{- with .values.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
