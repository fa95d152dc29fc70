{{/* Labels of every object; . is the name of its component. */}}
{{- define "labels" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: ai-storage-orchestrator
{{- end }}

{{- define "image" -}}
{{ .root.Values.image.registry }}/{{ .program }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The one configuration of the scheduler and the rebalancer, as text. */}}
{{- define "configuration" -}}
{{- $shipped := .Files.Get "files/scheduler-configuration.yaml" -}}
{{- if and .Values.onlyScheduler .Values.schedulerConfiguration -}}
{{- fail "onlyScheduler adds a profile to the shipped configuration: with a schedulerConfiguration of your own, add the profile default-scheduler and the lease kube-scheduler there and leave onlyScheduler false" -}}
{{- end -}}
{{- if .Values.onlyScheduler -}}
{{- $configuration := fromYaml $shipped -}}
{{- $profile := first $configuration.profiles -}}
{{- $default := merge (dict "schedulerName" "default-scheduler") $profile -}}
{{- $_ := set $configuration "profiles" (list $profile $default) -}}
{{- $_ := set $configuration "leaderElection" (dict "leaderElect" true "resourceName" "kube-scheduler" "resourceNamespace" "kube-system") -}}
{{- toYaml $configuration -}}
{{- else -}}
{{- .Values.schedulerConfiguration | default $shipped -}}
{{- end -}}
{{- end }}

{{/* What the pods of the scheduler and of the rebalancer have in common. */}}
{{- define "podDefaults" -}}
serviceAccountName: {{ .name }}
automountServiceAccountToken: true
priorityClassName: system-cluster-critical
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- include "pullSecrets" .root }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            app.kubernetes.io/name: {{ .name }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
