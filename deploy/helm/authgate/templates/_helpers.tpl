{{- define "authgate.name" -}}
{{ if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "authgate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "authgate.labels" -}}
{{ include "authgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "authgate.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "authgate.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "authgate.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* gateway.toml: the operator's, and what must agree with the rest of the chart. */ -}}
{{- define "authgate.config" -}}
{{- range $table := list "probes" "server.drain" }}
{{- if regexMatch (printf "(?m)^\\s*\\[\\s*%s\\s*\\]" (replace "." "\\s*\\.\\s*" $table)) $.Values.config }}
{{- fail (printf "config: leave [%s] out: the chart writes it, from `containerPort`, `drain` and its own probes" $table) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.enabled (regexMatch "(?m)^\\s*\\[\\s*admin\\s*\\]" .Values.config) }}
{{- fail "config: leave [admin] out: with metrics.enabled, the chart writes it" }}
{{- end }}
{{- .Values.config | trimSuffix "\n" }}

[server.drain]
delay = "{{ int .Values.drain.delaySeconds }}s"
timeout = "{{ int .Values.drain.timeoutSeconds }}s"

[probes]
listen = "0.0.0.0:9902"
{{- if .Values.metrics.enabled }}

[admin]
listen = "0.0.0.0:9901"
token = { file = "/etc/authgate/secrets/admin-token/token" }
tls = { chain = "/etc/authgate/secrets/admin-tls/tls.crt", key = "/etc/authgate/secrets/admin-tls/tls.key" }
{{- end }}
{{- end }}
