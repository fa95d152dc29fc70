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

{{/* Whom policies know by the names of their ServiceAccounts. */}}
{{- define "rebalancerUser" -}}
system:serviceaccount:ai-storage-system:ai-storage-rebalancer
{{- end }}

{{- define "nodeAgentUser" -}}
system:serviceaccount:ai-storage-node-agent:ai-storage-node-agent
{{- end }}

{{/* Conditions of policies: everybody but the rebalancer, and the node agents alone. */}}
{{- define "notTheRebalancer" -}}
- name: not-the-rebalancer
  expression: request.userInfo.username != '{{ include "rebalancerUser" . }}'
{{- end }}

{{- define "nodeAgentAlone" -}}
- name: node-agent
  expression: request.userInfo.username == '{{ include "nodeAgentUser" . }}'
{{- end }}

{{/* The node in a token that is bound to a pod or to a node; empty in others. */}}
{{- define "nodeOfToken" -}}
- name: node
  expression: request.userInfo.?extra[?'authentication.kubernetes.io/node-name'][?0].orValue('')
{{- end }}

{{- define "tokenNamesNode" -}}
- expression: variables.node != ''
  reason: Forbidden
  message: >-
    the token of a node agent must be bound to its pod, so that it names its node
    (authentication.kubernetes.io/node-name): this one names none
{{- end }}

{{/* Whether one of the keys in . differs between old and new object. */}}
{{- define "metadataChanges" -}}
[{{ .keys }}].exists(key,
  object.metadata.?{{ .of }}[?key].orValue('') != (oldObject == null ? '' : oldObject.metadata.?{{ .of }}[?key].orValue('')))
{{- end }}

{{- define "binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "labels" .component | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* Keys by which a pod is known to be of a migration, as lists in CEL. */}}
{{- define "podLabels" -}}
'migration.ai-storage/role', 'migration.ai-storage/migration-uid'
{{- end }}

{{- define "podAnnotations" -}}
'migration.ai-storage/original-uid', 'migration.ai-storage/released', 'migration.ai-storage/rollback-barrier', 'migration.ai-storage/probe'
{{- end }}
