output "inbound_endpoint_id" {
  description = "For `aws route53resolver list-resolver-endpoint-ip-addresses`, whose output `tidegate discover` takes."
  value       = aws_route53_resolver_endpoint.inbound.id
}

output "private_networks" {
  description = "For `private` of the rule: where the addresses of interface endpoints lie."
  value       = sort([for subnet in data.aws_subnet.endpoints : subnet.cidr_block])
}

# The same document as the AWS CLI prints, for `terraform output -json discover | tidegate discover`.
output "discover" {
  description = "The endpoint's addresses, as `tidegate discover` reads them."
  value = {
    IpAddresses = [
      for address in aws_route53_resolver_endpoint.inbound.ip_address : {
        Ip       = address.ip
        SubnetId = address.subnet_id
        IpId     = address.ip_id
        Status   = "ATTACHED"
      }
    ]
  }
}

data "aws_subnet" "endpoints" {
  for_each = toset(var.endpoint_subnet_ids)
  id       = each.key
}
