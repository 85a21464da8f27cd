{{- define "layeryard.name" -}}
{{- if contains "layeryard" .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-layeryard" .Release.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "layeryard.selector" -}}
app.kubernetes.io/name: layeryard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "layeryard.labels" -}}
{{ include "layeryard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Whether state lies outside of the pod, so that there may be several. */}}
{{- define "layeryard.shared" -}}
{{- if and .Values.database.existingSecret .Values.s3.bucket }}yes{{ end }}
{{- end }}

{{- define "layeryard.check" -}}
{{- if and (gt (int .Values.replicas) 1) (not (include "layeryard.shared" .)) }}
{{- fail "replicas > 1 needs database.existingSecret and s3.bucket: several replicas share nothing else" }}
{{- end }}
{{- if not .Values.config.access }}
{{- fail "config.access decides who may do what: set config.access.anonymous to read-only or read-write" }}
{{- end }}
{{- end }}

{{- define "layeryard.pod" -}}
{{- include "layeryard.check" . }}
metadata:
  labels:
    {{- include "layeryard.selector" . | nindent 4 }}
  annotations:
    # A changed configuration rolls the pods.
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  # Longer than limits.shutdown_delay and shutdown_grace together: running transfers end by themselves.
  terminationGracePeriodSeconds: 60
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: layeryard
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: ["serve", "--config", "/etc/layeryard/layeryard.toml"]
      {{- if or .Values.database.existingSecret .Values.s3.existingSecret }}
      env:
        {{- if .Values.database.existingSecret }}
        - name: LAYERYARD_DATABASE__URL
          valueFrom:
            secretKeyRef:
              name: {{ .Values.database.existingSecret }}
              key: {{ .Values.database.secretKey }}
        {{- end }}
        {{- if .Values.s3.existingSecret }}
        - name: LAYERYARD_STORAGE__S3__ACCESS_KEY_ID
          valueFrom:
            secretKeyRef:
              name: {{ .Values.s3.existingSecret }}
              key: {{ .Values.s3.accessKeyIdKey }}
        - name: LAYERYARD_STORAGE__S3__SECRET_ACCESS_KEY
          valueFrom:
            secretKeyRef:
              name: {{ .Values.s3.existingSecret }}
              key: {{ .Values.s3.secretAccessKeyKey }}
        {{- end }}
      {{- end }}
      ports:
        - name: http
          containerPort: 5000
      startupProbe:
        httpGet:
          path: /healthz
          port: http
        failureThreshold: 60
        periodSeconds: 2
      livenessProbe:
        httpGet:
          path: /healthz
          port: http
      readinessProbe:
        httpGet:
          path: /readyz
          port: http
        periodSeconds: 3
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/layeryard
          readOnly: true
        - name: data
          mountPath: /var/lib/layeryard
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: config
      configMap:
        name: {{ include "layeryard.name" . }}
    - name: tmp
      emptyDir: {}
    {{- if include "layeryard.shared" . }}
    - name: data
      emptyDir:
        sizeLimit: {{ .Values.spool.sizeLimit }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.affinity }}
  affinity:
    {{- toYaml .Values.affinity | nindent 4 }}
  {{- else if include "layeryard.shared" . }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "layeryard.selector" . | nindent 10 }}
  {{- end }}
{{- end }}
