{{- /* 52: that of a CronJob may have no more. */ -}}
{{- define "genesys-consumer.jobName" -}}
{{- $command := first .Values.job.args -}}
{{- $name := include "genesys-consumer.fullname" . | trunc (int (sub 51 (len $command))) | trimSuffix "-" -}}
{{- printf "%s-%s" $name $command -}}
{{- end -}}

{{- define "genesys-consumer.jobSpec" -}}
backoffLimit: 0
template:
  metadata:
    {{- with .Values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- /* None by which the release selects its pods: a command gets no probes and is in nobody's budget. */}}
    labels:
      app.kubernetes.io/component: job
      {{- with omit .Values.podLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  spec:
    restartPolicy: Never
    {{- include "genesys-consumer.podCommon" . | nindent 4 }}
    containers:
      - name: {{ first .Values.job.args }}
        args:
          {{- toYaml .Values.job.args | nindent 10 }}
        {{- include "genesys-consumer.containerCommon" . | nindent 8 }}
        env:
          {{- range $name, $value := include "genesys-consumer.environment" . | fromYaml }}
          - name: {{ $name }}
            value: {{ $value | quote }}
          {{- end }}
          {{- include "genesys-consumer.secretFiles" .Values.secretKeys | nindent 10 }}
          {{- with .Values.extraEnv }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        volumeMounts:
          {{- include "genesys-consumer.volumeMounts" . | nindent 10 }}
          {{- if .Values.job.claim }}
          - name: claim
            mountPath: /contacts
            readOnly: true
          {{- end }}
    volumes:
      {{- include "genesys-consumer.volumes" . | nindent 6 }}
      - name: state
        emptyDir: {}
      {{- with .Values.job.claim }}
      - name: claim
        persistentVolumeClaim:
          claimName: {{ . | quote }}
          readOnly: true
      {{- end }}
{{- end -}}
