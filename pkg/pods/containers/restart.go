package containers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// wouldRestart reports whether the kubelet starts a container again after it
// exited with code. It follows ContainerShouldRestart of
// k8s.io/kubernetes/pkg/api/v1/pod (KEP-5307): the first matching rule, then
// the policy of the container, then the policy of the pod. Init containers are
// never started again after success under the policy Always.
func wouldRestart(pod *corev1.PodSpec, c *corev1.Container, isInit bool, code int32) bool {
	if c.RestartPolicy != nil {
		for i := range c.RestartPolicyRules {
			rule := &c.RestartPolicyRules[i]
			if matches(rule, code) {
				if rule.Action == corev1.ContainerRestartRuleActionRestart ||
					rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
				break
			}
		}
		switch *c.RestartPolicy {
		case corev1.ContainerRestartPolicyAlways:
			return true
		case corev1.ContainerRestartPolicyOnFailure:
			return code != 0
		case corev1.ContainerRestartPolicyNever:
			return false
		}
	}
	switch pod.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	default: // Always is the default of the API.
		return !isInit || code != 0
	}
}

func matches(rule *corev1.ContainerRestartRule, code int32) bool {
	if rule.ExitCodes == nil {
		return false
	}
	listed := slices.Contains(rule.ExitCodes.Values, code)
	switch rule.ExitCodes.Operator {
	case corev1.ContainerRestartRuleOnExitCodesOpIn:
		return listed
	case corev1.ContainerRestartRuleOnExitCodesOpNotIn:
		return !listed
	default:
		return false
	}
}

// canRestartAll reports whether some container may, by a rule, make the
// kubelet run all containers of the pod again, finished ones included.
func canRestartAll(pod *corev1.PodSpec) bool {
	return slices.ContainsFunc(slices.Concat(pod.InitContainers, pod.Containers), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
			return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		})
	})
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
