{{- define "cortex.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "cortex.selector" -}}
app.kubernetes.io/name: cortex
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "cortex.labels" -}}
{{ include "cortex.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "cortex.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "cortex.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The addresses of all registries, as TOML lists them. */}}
{{- define "cortex.registries" -}}
{{- $root := . -}}
{{- range $n := until (int .Values.registry.replicas) -}}
{{- if $n }}, {{ end -}}
"{{ include "cortex.name" $root }}-registry-{{ $n }}.{{ include "cortex.name" $root }}-registry.{{ $root.Release.Namespace }}.svc:31315"
{{- end -}}
{{- end }}

{{/* [fleet] and `insecure`: certificates by cert-manager's CSI driver, or trust in the NetworkPolicies. */}}
{{- define "cortex.certificates" -}}
{{- if .Values.fleet.issuer.name }}
[fleet]
ca = "/etc/cortex/pki/ca.crt"
certificate = "/etc/cortex/pki/tls.crt"
key = "/etc/cortex/pki/tls.key"
{{- end }}
{{- end }}

{{/* The volume of a pod's own certificate. names: its DNS names, by commas. */}}
{{- define "cortex.certificateVolume" -}}
- name: pki
  csi:
    driver: csi.cert-manager.io
    readOnly: true
    volumeAttributes:
      csi.cert-manager.io/issuer-name: {{ .root.Values.fleet.issuer.name }}
      csi.cert-manager.io/issuer-kind: {{ .root.Values.fleet.issuer.kind | default "Issuer" }}
      csi.cert-manager.io/dns-names: {{ .names | quote }}
      csi.cert-manager.io/key-usages: "digital signature,key encipherment,server auth,client auth"
      csi.cert-manager.io/fs-group: "10001"
{{- end }}

{{/* Where the registry keeps its records: sqlite, postgresql or kubernetes. */}}
{{- define "cortex.store" -}}
{{- $secret := .Values.registry.postgres.existingSecret -}}
{{- $store := .Values.registry.store | default (ternary "postgresql" "sqlite" (ne $secret "")) -}}
{{- if and (eq $store "postgresql") (not $secret) -}}
{{- fail "registry.store: postgresql needs registry.postgres.existingSecret" -}}
{{- else if and $secret (ne $store "postgresql") -}}
{{- fail (printf "registry.postgres.existingSecret is set, and registry.store is %s" $store) -}}
{{- else if and (eq $store "sqlite") (gt (int .Values.registry.replicas) 1) -}}
{{- fail "registry.replicas above 1 needs a store that they share: registry.postgres.existingSecret, or registry.store: kubernetes" -}}
{{- end -}}
{{- $store -}}
{{- end }}

{{/* The Lease of a store in Kubernetes; the names of its other objects begin with it. */}}
{{- define "cortex.storeName" -}}
{{ include "cortex.name" . }}-registry
{{- end }}
