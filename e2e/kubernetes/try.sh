#!/bin/bash
# Starts a cluster of three nodes and runs through the life of a Deployment, in
# namespaces that end with the script. With the argument `shell`, a shell
# follows. See README.md for what is started how.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
export lab=${LAB_DIRECTORY:-$(realpath "$here/../../target/lab")}
if [ "${INSIDE_LAB:-}" = "" ]; then
    INSIDE_LAB=yes exec unshare -Urnmp --fork --mount-proc --kill-child "$0" "$@"
fi

mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lab/{keys,logs}
bin=$lab/kubernetes
keys=/run/lab/keys
state=/run/lab
kubectl() { "$bin" kubectl --kubeconfig $keys/admin.kubeconfig "$@"; }
start() { # name, command ..
    local name=$1
    shift
    "$@" >"/run/lab/logs/$name.log" 2>&1 &
}
now() { date +%s%3N; }
say() { printf '\n--- %s\n' "$*"; }
await() { # what, seconds, command ..
    local what=$1 until=$((SECONDS + $2)) begin
    begin=$(now)
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || { say "NOT in time: $what"; tail -n 20 /run/lab/logs/*.log; exit 1; }
        sleep 0.05
    done
    echo "$what: $(($(now) - begin)) ms"
}

say "LAN"
ip link set lo up
ip link add lan type bridge mcast_snooping 0
ip addr add 192.168.1.1/24 dev lan
ip addr add fd12:3456:789a:1::1/64 dev lan nodad
ip link set lan up
host() { # name, last part
    ip netns add "$1"
    ip link add "lan-$1" master lan type veth peer name eth0 netns "$1"
    ip link set "lan-$1" up
    ip -n "$1" link set lo up
    ip -n "$1" addr add "192.168.1.$2/24" dev eth0
    ip -n "$1" addr add "fd12:3456:789a:1::$2/64" dev eth0 nodad
    ip -n "$1" link set eth0 up
    ip -n "$1" route add default via 192.168.1.1
    ip -n "$1" -6 route add default via fd12:3456:789a:1::1
}
host client 100
for n in 1 2 3; do
    host node-$n 1$n
    for namespace in "" "-n client"; do
        ip $namespace route add 10.244.$n.0/24 via 192.168.1.1$n
        ip $namespace -6 route add fd12:3456:789a:f40$n::/64 via fd12:3456:789a:1::1$n
    done
done

say "control plane"
"$bin" pki --directory $keys --server-address 192.168.1.1,fd12:3456:789a:1::1 \
    --server-url https://192.168.1.1:6443 --node node-1 --node node-2 --node node-3
services=10.96.0.0/16,fd12:3456:789a:10::/112
start etcd "$bin" etcd --data-dir $state/etcd --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
start kube-apiserver "$bin" kube-apiserver --etcd-servers http://127.0.0.1:2379 \
    --advertise-address 192.168.1.1 --bind-address :: --secure-port 6443 \
    --tls-cert-file $keys/apiserver.crt --tls-private-key-file $keys/apiserver.key \
    --client-ca-file $keys/ca.crt --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --service-cluster-ip-range $services \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file $keys/sa.pub --service-account-signing-key-file $keys/sa.key \
    --kubelet-client-certificate $keys/apiserver-kubelet-client.crt \
    --kubelet-client-key $keys/apiserver-kubelet-client.key --kubelet-preferred-address-types InternalIP \
    --requestheader-client-ca-file $keys/front-proxy-ca.crt --requestheader-allowed-names front-proxy-client \
    --requestheader-extra-headers-prefix X-Remote-Extra- --requestheader-group-headers X-Remote-Group \
    --requestheader-username-headers X-Remote-User \
    --proxy-client-cert-file $keys/front-proxy-client.crt --proxy-client-key-file $keys/front-proxy-client.key \
    --cert-dir $state/apiserver
await "API server ready" 60 kubectl get --raw /readyz
credentials() { echo --kubeconfig $keys/$1.kubeconfig --authentication-kubeconfig $keys/$1.kubeconfig --authorization-kubeconfig $keys/$1.kubeconfig; }
start kube-controller-manager "$bin" kube-controller-manager $(credentials controller-manager) --bind-address 127.0.0.1 \
    --allocate-node-cidrs --cluster-cidr 10.244.0.0/16,fd12:3456:789a:f400::/56 \
    --node-cidr-mask-size-ipv4 24 --node-cidr-mask-size-ipv6 64 --service-cluster-ip-range $services \
    --use-service-account-credentials --service-account-private-key-file $keys/sa.key --root-ca-file $keys/ca.crt \
    --cluster-signing-cert-file $keys/ca.crt --cluster-signing-key-file $keys/ca.key \
    --kube-api-qps 1000 --kube-api-burst 2000 --leader-elect=false --cert-dir $state/controller-manager
start kube-scheduler "$bin" kube-scheduler $(credentials scheduler) --bind-address 127.0.0.1 \
    --kube-api-qps 1000 --kube-api-burst 2000 --leader-elect=false --cert-dir $state/scheduler

say "nodes"
agent() { # number
    nsenter --net=/run/netns/node-"$1" "$bin" node-agent --node-name node-"$1" --node-netns node-"$1" \
        --node-addresses 192.168.1.1"$1",fd12:3456:789a:1::1"$1" \
        --pod-networks 10.244."$1".0/24,fd12:3456:789a:f40"$1"::/64 \
        --kubeconfig $keys/node-node-"$1".kubeconfig --state-directory $state/node-"$1" \
        --image "agnhost=$lab/agnhost pause" --image busybox=/bin/sh --label zone=zone-"$1"
}
for n in 1 2 3; do
    start node-$n agent $n
done
await "nodes exist" 30 kubectl get node node-1 node-2 node-3
await "nodes ready" 30 kubectl wait --for=condition=Ready node --all --timeout=1s
await "service account" 30 kubectl get serviceaccount default
kubectl get nodes -o wide

say "Deployment of three over three nodes"
cat >/run/lab/web.yaml <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: agnhost:2.53
        args: [netexec, --http-port=8080, --udp-port=8081]
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: PODS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /hostname, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80, targetPort: http}]
YAML
begin=$(now)
kubectl apply -f /run/lab/web.yaml
kubectl rollout status deployment/web --timeout=60s
echo "rolled out after $(($(now) - begin)) ms"
kubectl get pods -o wide
kubectl get endpointslices -o wide

say "Pods across nodes, from the client, both families"
pods=$(kubectl get pods -l app=web -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIPs[0].ip} {.status.podIPs[1].ip}{"\n"}{end}')
while read -r name uid four six; do
    for source in client $(cut -d' ' -f2 <<<"$pods" | sed 's/^\(........\).*/pod-\1/'); do
        for address in "$four" "[$six]"; do
            answer=$(nsenter --net=/run/netns/"$source" curl -sS --max-time 3 "http://$address:8080/hostname")
            [ "$answer" = "$name" ] || { echo "$source -> $address: $answer, not $name"; exit 1; }
        done
    done
    echo "$name answers from everywhere"
done <<<"$pods"
kubectl logs deployment/web --tail 2

say "scale up and down, roll, delete"
begin=$(now)
kubectl scale deployment/web --replicas 9
kubectl rollout status deployment/web --timeout=60s | tail -1
echo "nine after $(($(now) - begin)) ms"
kubectl scale deployment/web --replicas 3
three() { [ "$(kubectl get pods -l app=web -o name | wc -l)" = 3 ]; }
await "three pods" 30 three
begin=$(now)
kubectl set env deployment/web ROUND=2
kubectl rollout status deployment/web --timeout=60s | tail -1
echo "rolled after $(($(now) - begin)) ms"

say "a container that crashes, one that dies by its liveness probe, one of an unknown image, a Job, one with an init container"
cat >/run/lab/odd.yaml <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec: {containers: [{name: main, image: busybox, command: [sh, -c, "echo run; sleep 0.2; exit 3"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "sleep 1000"]
    livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 2}
---
apiVersion: v1
kind: Pod
metadata: {name: unknown}
spec: {containers: [{name: main, image: "registry.example/nginx:1"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: busybox, command: [sh, -c, "hostname; exit 0"]}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: stages}
spec:
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, "echo first"]}
  - {name: side, image: agnhost, restartPolicy: Always}
  containers: [{name: main, image: agnhost}]
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec: {hostNetwork: true, nodeName: node-2, containers: [{name: main, image: agnhost, args: [netexec, --http-port=9000]}]}
YAML
kubectl apply -f /run/lab/odd.yaml
kubectl wait --for=condition=Complete job/once --timeout=30s
kubectl wait --for=condition=Ready pod/stages pod/host --timeout=10s || { kubectl get pods -o wide; kubectl get pod stages host -o yaml; kubectl events | tail -40; tail /run/lab/logs/node-?.log; exit 1; }
sleep 4
kubectl get pods -o wide
kubectl events | grep -v Scheduled | tail -30
kubectl logs crash
kubectl logs job/once

say "a Pod with files of its own: volumes, names, its account; the machine's own files stay as they are"
cat >/run/lab/files.yaml <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: paint}
data: {colour: blue, shade: dark}
---
apiVersion: v1
kind: Secret
metadata: {name: word}
stringData: {word: open}
---
apiVersion: v1
kind: Pod
metadata: {name: files}
spec:
  hostname: painter
  terminationGracePeriodSeconds: 1
  hostAliases: [{ip: 192.168.1.1, hostnames: [router]}]
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: paint, configMap: {name: paint, items: [{key: colour, path: a/colour}]}}
  - {name: word, secret: {secretName: word, defaultMode: 0400}}
  - {name: self, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
  containers:
  - name: main
    image: busybox
    envFrom: [{configMapRef: {name: paint}, prefix: PAINT_}]
    env: [{name: WORD, valueFrom: {secretKeyRef: {name: word, key: word}}}]
    volumeMounts:
    - {name: scratch, mountPath: /made-by-the-lab/scratch}
    - {name: scratch, mountPath: /etc/lab-scratch/below, subPath: below}
    - {name: paint, mountPath: /etc/lab-paint, readOnly: true}
    - {name: word, mountPath: /etc/lab-word}
    - {name: self, mountPath: /self}
    command: [sh, -ec, 'cd /var/run/secrets/kubernetes.io/serviceaccount
      && echo "namespace=$(cat namespace)"
      && echo "api=$(curl -sS --cacert ca.crt -H "Authorization: Bearer $(cat token)" https://192.168.1.1:6443/apis/authentication.k8s.io/v1/selfsubjectreviews -H "Content-Type: application/json" -d "{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"SelfSubjectReview\"}" | jq -r .status.userInfo.username)"
      && echo "server=$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT paint=$(cat /etc/lab-paint/a/colour) $PAINT_shade word=$(cat /etc/lab-word/word) $WORD self=$(cat /self/name) host=$(hostname) $(getent ahostsv4 painter | head -1 | cut -c1-7) $(getent ahostsv4 router | head -1 | cut -d" " -f1)"
      && cat /etc/resolv.conf && echo of-scratch >/etc/lab-scratch/below/x && echo "scratch=$(cat /made-by-the-lab/scratch/below/x)"
      && if echo red >/etc/lab-paint/red; then echo writable; else echo read-only; fi 2>/dev/null
      && echo ready >/made-by-the-lab/scratch/ready && exec sleep 1000']
    readinessProbe: {exec: {command: [cat, /made-by-the-lab/scratch/ready]}, periodSeconds: 1}
YAML
kubectl apply -f /run/lab/files.yaml
kubectl wait --for=condition=Ready pod/files --timeout=10s || { kubectl logs files; kubectl events --for pod/files; exit 1; }
told=$(kubectl logs files)
echo "$told"
for line in namespace=default api=system:serviceaccount:default:default \
    'server=10.96.0.1:443 paint=blue dark word=open open self=files host=painter 10.244. 192.168.1.1' \
    'nameserver 10.96.0.10' 'options ndots:5' scratch=of-scratch read-only; do
    grep -qxF "$line" <<<"$told" || { echo "NOT told: $line"; exit 1; }
done
for path in /made-by-the-lab /etc/lab-scratch /etc/lab-paint /self /run/secrets; do
    [ ! -e $path ] || { echo "$path is on the machine itself"; exit 1; }
done

say "the agent of node-1 is killed and comes back"
before=$(kubectl get pods -l app=web --field-selector spec.nodeName=node-1 -o name)
agents=$(pgrep -f "node-agent --node-name node-1" | head -1)
kill -9 "$agents"
start node-1b agent 1
sleep 2
kubectl get pods --field-selector spec.nodeName=node-1 -o wide
kubectl wait --for=condition=Ready $before --timeout=20s

say "the agent of node-2 is told to stop and comes back"
inside() { pgrep -f "netexec --http-port=9000" >/dev/null; }
outside() { ! inside; }
inside
kill -TERM "$(pgrep -f "node-agent --node-name node-2" | head -1)"
await "its Pods' processes are gone" 10 outside
start node-2b agent 2
await "they are back" 10 inside
kubectl wait --for=condition=Ready pod/host --timeout=10s

say "everything goes"
begin=$(now)
kubectl delete deployment/web service/web --wait=false
kubectl delete --grace-period=1 -f /run/lab/odd.yaml -f /run/lab/files.yaml
kubectl wait --for=delete pod --all --timeout=30s
echo "gone after $(($(now) - begin)) ms"
ls /run/netns
ps ax -o pid,args | grep -c '[n]etexec' || true
[ "${1:-}" != shell ] || bash -i
