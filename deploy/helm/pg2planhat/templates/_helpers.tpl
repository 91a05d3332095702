{{- /* The release's name, at most 24 characters: an instance's name (24) and a Job's ending must fit into 63. */ -}}
{{- define "pg2planhat.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 24 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 24 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 24 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pg2planhat.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pg2planhat.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "pg2planhat.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Labels of everything. */ -}}
{{- define "pg2planhat.labels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- /*
  What follows is called with a dict: root (the chart's own context) and instance (an entry of `instances`).
*/ -}}

{{- define "pg2planhat.instance.name" -}}
{{- printf "%s-%s" (include "pg2planhat.fullname" .root) .instance.name -}}
{{- end -}}

{{- /* All pods of one instance, Jobs too: what its NetworkPolicy selects. */ -}}
{{- define "pg2planhat.instance.labels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
pg2planhat/instance: {{ .instance.name }}
{{- end -}}

{{- /* The pods that stream, and no Job's. */ -}}
{{- define "pg2planhat.instance.selector" -}}
{{ include "pg2planhat.instance.labels" . }}
app.kubernetes.io/component: streamer
{{- end -}}

{{- define "pg2planhat.instance.secret" -}}
{{- default (include "pg2planhat.instance.name" .) .instance.secret -}}
{{- end -}}

{{- /*
  Lays the dict `over` over the dict `under`, in place. What stands there counts, also 0, false, "" and []; null takes a key away.
  Not mergeOverwrite: to that an empty list is none.
*/ -}}
{{- define "pg2planhat.lay" -}}
{{- $under := .under -}}
{{- range $key, $value := .over -}}
{{- $below := get $under $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $below) -}}
{{- include "pg2planhat.lay" (dict "under" $below "over" $value) -}}
{{- else if kindIs "invalid" $value -}}
{{- $_ := unset $under $key -}}
{{- else -}}
{{- $_ := set $under $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* `pod`, `console` or `externalSecret` (key) with the instance's own laid over; as JSON. */ -}}
{{- define "pg2planhat.instance.over" -}}
{{- $all := deepCopy (get .root.Values .key) -}}
{{- include "pg2planhat.lay" (dict "under" $all "over" (deepCopy (default dict (get .instance .key)))) -}}
{{- toJson $all -}}
{{- end -}}

{{- /* How many pods: 0 is a number, too. */ -}}
{{- define "pg2planhat.instance.replicas" -}}
{{- if hasKey .instance "replicas" }}{{ int .instance.replicas }}{{ else }}1{{ end -}}
{{- end -}}

{{- /* Fails where Helm has made another value of what was written: `value`, at `place`. */ -}}
{{- define "pg2planhat.asWritten" -}}
{{- $place := .place -}}
{{- if kindIs "map" .value -}}
{{- range $key, $value := .value -}}
{{- if has $key (list "true" "false") -}}
{{- fail (printf "%s: a key is %s: Helm reads y, yes, on, n, no and off as true and false; write such a key in quotes" $place $key) -}}
{{- end -}}
{{- include "pg2planhat.asWritten" (dict "place" (printf "%s.%s" $place $key) "value" $value) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $at, $value := .value -}}
{{- include "pg2planhat.asWritten" (dict "place" (printf "%s[%d]" $place $at) "value" $value) -}}
{{- end -}}
{{- else if kindIs "float64" .value -}}
{{- if or (gt .value 9007199254740991.0) (lt .value -9007199254740991.0) -}}
{{- fail (printf "%s: Helm reads numbers as floating point, and has made %.0f of this one; write it in quotes" $place .value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The whole configuration; as JSON. `over` (optional) is laid over the instance's own. */ -}}
{{- define "pg2planhat.instance.config" -}}
{{- $config := deepCopy .root.Values.config -}}
{{- include "pg2planhat.lay" (dict "under" $config "over" (deepCopy .instance.config)) -}}
{{- include "pg2planhat.lay" (dict "under" $config "over" (deepCopy (default dict .over))) -}}
{{- /* Helm reads YAML 1.1, to which the key `on` of a section is true. */ -}}
{{- range $section := $config.sections -}}
{{- if and (hasKey $section "true") (not (hasKey $section "on")) -}}
{{- $_ := set $section "on" (get $section "true") -}}
{{- $_ := unset $section "true" -}}
{{- end -}}
{{- end -}}
{{- include "pg2planhat.asWritten" (dict "place" (printf "instance %s: config" .instance.name) "value" ($config | toJson | fromJson)) -}}
{{- $own := printf "pg2planhat_%s" (replace "-" "_" .instance.name) -}}
{{- $source := default dict $config.source -}}
{{- $_ := set $source "slot" (default $own $source.slot) -}}
{{- $_ := set $source "publication" (default $own $source.publication) -}}
{{- if not (or (hasKey $source "password") (hasKey $source "url")) -}}
{{- $_ := set $source "password" (dict "file" "/run/secrets/pg2planhat/pg-password") -}}
{{- end -}}
{{- $_ := set $config "source" $source -}}
{{- $state := default dict $config.state -}}
{{- $_ := set $state "schema" (default $own $state.schema) -}}
{{- $_ := set $config "state" $state -}}
{{- $planhat := default dict $config.planhat -}}
{{- if not (hasKey $planhat "tenant") -}}
{{- $_ := set $planhat "tenant" (dict "file" "/run/secrets/pg2planhat/tenant") -}}
{{- end -}}
{{- $_ := set $config "planhat" $planhat -}}
{{- $admin := default dict $config.admin -}}
{{- $_ := set $admin "listen" (printf "%s:9187" .root.Values.listenAddress) -}}
{{- $_ := set $config "admin" $admin -}}
{{- $wanted := include "pg2planhat.instance.over" (dict "root" .root "instance" .instance "key" "console") | fromJson -}}
{{- if $wanted.enabled -}}
{{- $console := default dict $config.console -}}
{{- if not $console.tokens -}}
{{- fail (printf "instance %s: console.enabled needs config.console.tokens: nobody may come in without" .instance.name) -}}
{{- end -}}
{{- $_ := set $console "listen" (printf "%s:9188" .root.Values.listenAddress) -}}
{{- if and $wanted.ingress.enabled $wanted.ingress.host -}}
{{- $_ := set $console "hosts" (append (default list $console.hosts) $wanted.ingress.host | uniq) -}}
{{- end -}}
{{- $_ := set $config "console" $console -}}
{{- else if $config.console -}}
{{- fail (printf "instance %s: config.console is set, and console.enabled is not: the port would not be reached" .instance.name) -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{- /* The text of the configuration's file. */ -}}
{{- define "pg2planhat.instance.configText" -}}
{{- include "pg2planhat.instance.config" . | fromJson | toYaml -}}
{{- end -}}

{{- /* 20s, 2m or 1h in seconds. */ -}}
{{- define "pg2planhat.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "s" }}{{ $number }}{{ else if eq $unit "m" }}{{ mul $number 60 }}{{ else if eq $unit "h" }}{{ mul $number 3600 }}
{{- else -}}
{{- fail (printf "config.shutdown_grace: %s: write it as 20s, 2m or 1h" .) -}}
{{- end -}}
{{- end -}}

{{- /* 64MiB or 1GiB in mebibytes. */ -}}
{{- define "pg2planhat.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- if hasSuffix "GiB" . }}{{ mul $number 1024 }}{{ else if hasSuffix "MiB" . }}{{ $number }}
{{- else -}}
{{- fail (printf "config.memory: %s: write it in MiB or GiB" .) -}}
{{- end -}}
{{- end -}}

{{- /* Security of a container: as restricted as can be. */ -}}
{{- define "pg2planhat.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* What the schema cannot see: two instances in each other's way. */ -}}
{{- define "pg2planhat.verify" -}}
{{- $names := list -}}
{{- $slots := dict -}}
{{- $schemas := dict -}}
{{- range .Values.instances -}}
{{- if has .name $names -}}
{{- fail (printf "instances: two are called %s" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- $config := include "pg2planhat.instance.config" (dict "root" $ "instance" .) | fromJson -}}
{{- $source := $config.source -}}
{{- $server := printf "%s:%v" (toJson (default $source.host $source.url)) (default 5432 $source.port) -}}
{{- $slot := printf "%s %s" $server $source.slot -}}
{{- if hasKey $slots $slot -}}
{{- fail (printf "instances: %s and %s share the slot %s: one would wait for the other for ever" (get $slots $slot) .name $source.slot) -}}
{{- end -}}
{{- $_ := set $slots $slot .name -}}
{{- $place := $server -}}
{{- if $config.state.url }}{{ $place = toJson $config.state.url }}{{ else }}{{ $place = printf "%s/%v" $server $source.database }}{{ end -}}
{{- $schema := printf "%s %s" $place $config.state.schema -}}
{{- if hasKey $schemas $schema -}}
{{- fail (printf "instances: %s and %s share the state schema %s" (get $schemas $schema) .name $config.state.schema) -}}
{{- end -}}
{{- $_ := set $schemas $schema .name -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- fail "podMonitor and serviceMonitor: enable one of them, or each pod is scraped twice" -}}
{{- end -}}
{{- range $job, $wanted := .Values.jobs -}}
{{- range $wanted.instances -}}
{{- if not (has . $names) -}}
{{- fail (printf "jobs.%s.instances: there is no instance %s" $job .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.jobs.repair.enabled (not (and .Values.jobs.repair.how .Values.jobs.repair.confirmed)) -}}
{{- fail "jobs.repair: say how (gap, backfill or accept-loss), and confirmed: true once you have read what it does to the rows at Planhat" -}}
{{- end -}}
{{- end -}}
