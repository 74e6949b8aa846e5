{{- define "genesys-consumer.stateDir" -}}
/var/lib/genesys-consumer
{{- end -}}

{{- define "genesys-consumer.filesDir" -}}
/etc/genesys-consumer/files
{{- end -}}

{{- /* A file below the mount of `files` that is not among them is not in the pods either: the program would not start. */ -}}
{{- define "genesys-consumer.checkFiles" -}}
{{- $mount := include "genesys-consumer.filesDir" . -}}
{{- $mapping := default "" .Values.settings.SOURCE_MAPPING -}}
{{- if and (hasPrefix (print $mount "/") $mapping) (not (hasKey (default dict .Values.files) (trimPrefix (print $mount "/") $mapping))) -}}
{{- fail (printf "settings.SOURCE_MAPPING is %s, and files has no %s" $mapping (trimPrefix (print $mount "/") $mapping)) -}}
{{- end -}}
{{- $schemas := default "" .Values.settings.SCHEMAS_DIR | trimSuffix "/" -}}
{{- if and (eq $schemas $mount) (not .Values.files) -}}
{{- fail (printf "settings.SCHEMAS_DIR is %s, and there are no files" $schemas) -}}
{{- end -}}
{{- end -}}

{{- define "genesys-consumer.environment" -}}
{{- include "genesys-consumer.checkFiles" . -}}
DRAIN_TIMEOUT_S: {{ int64 .Values.drain.timeoutSeconds | quote }}
HTTP_ADDRESS: "*:8080"
STATE_DIR: {{ include "genesys-consumer.stateDir" . }}
{{- range $name, $value := .Values.settings }}
{{- /* Helm reads numbers as floats, which print as 1e+07. */}}
{{ $name }}: {{ ternary $value ($value | int64) (or (kindIs "string" $value) (kindIs "bool" $value)) | quote }}
{{- end }}
{{- end -}}

{{- define "genesys-consumer.secretFile" -}}
/etc/genesys-consumer/secrets/{{ . }}
{{- end -}}

{{- define "genesys-consumer.secretFiles" -}}
- name: GENESYS_OAUTH_CLIENT_ID_FILE
  value: {{ include "genesys-consumer.secretFile" .oauthClientId }}
- name: GENESYS_OAUTH_CLIENT_SECRET_FILE
  value: {{ include "genesys-consumer.secretFile" .oauthClientSecret }}
{{- with .pseudonymKey }}
- name: PSEUDONYM_KEY_FILE
  value: {{ include "genesys-consumer.secretFile" . }}
{{- end }}
{{- with .kafkaProperties }}
- name: KAFKA_PROPERTIES_FILE
  value: {{ include "genesys-consumer.secretFile" . }}
{{- end }}
{{- with .schemaRegistryPassword }}
- name: SCHEMA_REGISTRY_PASSWORD_FILE
  value: {{ include "genesys-consumer.secretFile" . }}
{{- end }}
{{- with .schemaRegistryProperties }}
- name: SCHEMA_REGISTRY_PROPERTIES_FILE
  value: {{ include "genesys-consumer.secretFile" . }}
{{- end }}
{{- end -}}

{{- define "genesys-consumer.resources" -}}
{{- if ne (toString .requests.memory) (toString .limits.memory) -}}
{{- fail "resources.limits.memory must equal resources.requests.memory" -}}
{{- end -}}
{{- toYaml . -}}
{{- end -}}

{{- /* Of the container: what the pods and a Job have in common. */ -}}
{{- define "genesys-consumer.containerCommon" -}}
image: {{ include "genesys-consumer.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# The last lines on stderr say why it ended: `kubectl describe pod` shows them then.
terminationMessagePolicy: FallbackToLogsOnError
resources:
  {{- include "genesys-consumer.resources" .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "genesys-consumer.volumeMounts" -}}
- name: state
  mountPath: {{ include "genesys-consumer.stateDir" . }}
- name: secrets
  mountPath: /etc/genesys-consumer/secrets
  readOnly: true
{{- range $name := .Values.extraSecrets }}
- name: {{ printf "extra-%s" ($name | sha256sum | trunc 8) }}
  mountPath: {{ printf "/etc/genesys-consumer/extra/%s" $name }}
  readOnly: true
{{- end }}
{{- if .Values.files }}
- name: files
  mountPath: {{ include "genesys-consumer.filesDir" . }}
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "genesys-consumer.container" -}}
name: consumer
args: [run]
{{ include "genesys-consumer.containerCommon" . }}
envFrom:
  - configMapRef:
      name: {{ include "genesys-consumer.fullname" . }}
env:
  {{- include "genesys-consumer.secretFiles" .Values.secretKeys | nindent 2 }}
  {{- if and .Values.staticMembership (eq .Values.kind "StatefulSet") }}
  - name: KAFKA_GROUP_INSTANCE_ID
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: http
    containerPort: 8080
startupProbe:
  httpGet:
    path: /livez
    port: http
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: http
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  {{- toYaml .Values.probes.readiness | nindent 2 }}
volumeMounts:
  {{- include "genesys-consumer.volumeMounts" . | nindent 2 }}
{{- end -}}

{{- define "genesys-consumer.spread" -}}
{{- $selected := dict "matchLabels" (include "genesys-consumer.selectorLabels" . | fromYaml) -}}
{{- $spread := list -}}
{{- range .Values.topologySpreadConstraints -}}
{{- $spread = append $spread (merge (dict "labelSelector" $selected) .) -}}
{{- end -}}
{{- toYaml $spread -}}
{{- end -}}

{{- /* Of the pod's spec: what the pods and a Job have in common. */ -}}
{{- define "genesys-consumer.podCommon" -}}
serviceAccountName: {{ include "genesys-consumer.serviceAccountName" . | quote }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ add .Values.drain.timeoutSeconds .Values.drain.marginSeconds }}
# Otherwise a Service in the namespace could set variables that look like settings.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.user }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "genesys-consumer.volumes" -}}
- name: secrets
  secret:
    secretName: {{ .Values.existingSecret | quote }}
    defaultMode: 0440
{{- range $name := .Values.extraSecrets }}
- name: {{ printf "extra-%s" ($name | sha256sum | trunc 8) }}
  secret:
    secretName: {{ $name | quote }}
    defaultMode: 0440
{{- end }}
{{- if .Values.files }}
- name: files
  configMap:
    name: {{ include "genesys-consumer.fullname" . }}-files
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end -}}

{{- define "genesys-consumer.pod" -}}
metadata:
  annotations:
    checksum/config: {{ printf "%s%s" (include "genesys-consumer.environment" .) (toYaml .Values.files) | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- merge (include "genesys-consumer.labels" . | fromYaml) .Values.podLabels | toYaml | nindent 4 }}
spec:
  {{- include "genesys-consumer.podCommon" . | nindent 2 }}
  containers:
    - {{ include "genesys-consumer.container" . | nindent 6 | trim }}
  volumes:
    {{- include "genesys-consumer.volumes" . | nindent 4 }}
    {{- if eq .Values.kind "Deployment" }}
    - name: state
      emptyDir:
        sizeLimit: {{ .Values.state.size }}
    {{- end }}
  {{- if .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- include "genesys-consumer.spread" . | nindent 4 }}
  {{- end }}
{{- end -}}
