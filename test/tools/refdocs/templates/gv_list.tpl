{{- define "gvList" -}}
# API reference

<!-- Generated from the Go types by `make generate`. Do not edit. -->

Every field that the programs and the resource know, from the comments in the code. [tuning.md](tuning.md) tells what the arguments change,
[migration.md](migration.md) how a migration goes.
{{ range . }}
{{ template "gvDetails" . }}
{{- end }}
{{- end -}}
