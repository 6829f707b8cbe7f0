{{- define "extauth.fullname" -}}
{{- if contains "extauth" .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-extauth" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "extauth.selectorLabels" -}}
app.kubernetes.io/name: extauth
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "extauth.labels" -}}
{{ include "extauth.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- /* A value as text: Helm takes each number of a file for a float, and would write 268435456 as 2.68435456e+08. */ -}}
{{- define "extauth.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- end -}}

{{- define "extauth.configMap" -}}
{{- .Values.existingConfigMap | default (include "extauth.fullname" .) -}}
{{- end -}}

{{- define "extauth.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "extauth.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "extauth.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* EXTAUTH_REDIS_URL from its parts; Kubernetes puts the password in where $(REDIS_PASSWORD) is. */ -}}
{{- define "extauth.redisURL" -}}
{{- $redis := .Values.redis -}}
{{- $scheme := ternary "rediss" "redis" $redis.tls -}}
{{- if ne $redis.mode "single" -}}{{- $scheme = printf "%s+%s" $scheme $redis.mode -}}{{- end -}}
{{- $user := "" -}}
{{- if $redis.passwordSecret.name -}}
{{- $user = printf "%s:$(REDIS_PASSWORD)@" $redis.username -}}
{{- else if $redis.username -}}
{{- fail "redis.username needs redis.passwordSecret.name" -}}
{{- end -}}
{{- $path := "" -}}
{{- if eq $redis.mode "sentinel" -}}
{{- $path = printf "/%s" (required "redis.master: the name under which the sentinels know the master" $redis.master) -}}
{{- end -}}
{{- if $redis.db -}}
{{- if eq $redis.mode "cluster" -}}{{- fail "redis.db: a cluster has database 0 alone" -}}{{- end -}}
{{- $path = printf "%s/%d" $path (int $redis.db) -}}
{{- end -}}
{{- if and (eq $redis.mode "single") (ne (len $redis.hosts) 1) -}}
{{- fail "redis.hosts: with redis.mode single there is one" -}}
{{- end -}}
{{- printf "%s://%s%s%s" $scheme $user (join "," $redis.hosts) $path -}}
{{- if $redis.options -}}?{{- $redis.options -}}{{- end -}}
{{- end -}}
