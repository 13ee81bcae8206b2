{{- define "latentq.selector" -}}
app.kubernetes.io/name: latentq
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "latentq.labels" -}}
{{ include "latentq.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* What every pod has, whatever runs in it. */}}
{{- define "latentq.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
volumes:
  - name: secret
    secret: {secretName: {{ .Values.secret }}, defaultMode: 0440}
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
{{- if .Values.models.claim }}
  - name: models
    persistentVolumeClaim: {claimName: {{ .Values.models.claim }}, readOnly: true}
{{- end }}
{{- end }}

{{/* What every container has. */}}
{{- define "latentq.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: secret, mountPath: /run/secrets/latentq, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- if .Values.models.claim }}
  - {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "latentq.image" -}}
{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Where the stores are. */}}
{{- define "latentq.variables" -}}
- {name: LATENTQ_DATABASE_URL_FILE, value: /run/secrets/latentq/database-url}
- {name: LATENTQ_REDIS_URL_FILE, value: /run/secrets/latentq/redis-url}
- {name: LATENTQ_S3_ENDPOINT, value: {{ required "s3.endpoint is missing" .Values.s3.endpoint | quote }}}
- {name: LATENTQ_S3_REGION, value: {{ .Values.s3.region | quote }}}
- {name: LATENTQ_S3_BUCKET, value: {{ .Values.s3.bucket | quote }}}
{{- with .Values.s3.addressing }}
- {name: LATENTQ_S3_ADDRESSING, value: {{ . }}}
{{- end }}
{{- with .Values.s3.caBundle }}
- {name: LATENTQ_S3_CA_BUNDLE, value: {{ . | quote }}}
{{- end }}
- {name: LATENTQ_S3_ACCESS_KEY_FILE, value: /run/secrets/latentq/s3-access-key}
- {name: LATENTQ_S3_SECRET_KEY_FILE, value: /run/secrets/latentq/s3-secret-key}
- {name: LATENTQ_METRICS_HOST, value: 0.0.0.0}
- {name: LATENTQ_METRICS_PORT, value: {{ .Values.metrics.port | quote }}}
{{- end }}

{{- define "latentq.catalog" -}}
{{- if .Values.models.claim -}}
- {name: LATENTQ_CATALOG, value: {{ .Values.models.catalog | quote }}}
{{- end }}
{{- end }}

{{- define "latentq.publicEndpoint" -}}
{{- with .Values.s3.publicEndpoint -}}
- {name: LATENTQ_S3_PUBLIC_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "latentq.moreVariables" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}
