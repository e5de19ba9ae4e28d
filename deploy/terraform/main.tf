# The AWS side of tidegate: an inbound endpoint, its security group, interface endpoints with private DNS.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40"
    }
  }
}

data "aws_region" "current" {}

# Route 53 answers about 10000 queries a second on an address whose security group does not track connections, and about 1500
# where it does. A flow is not tracked where a rule lets everything in from everywhere and another lets everything out to
# everywhere, for the protocol. Routes and `aws_network_acl` then decide who reaches the addresses; the addresses
# are private.
resource "aws_security_group" "inbound" {
  name_prefix = "${var.name}-inbound-"
  description = "DNS to the Route 53 Resolver inbound endpoint, untracked"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-inbound" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "dns" {
  for_each = {
    udp   = { protocol = "udp", port = 53 }
    tcp   = { protocol = "tcp", port = 53 }
    https = { protocol = "tcp", port = 443 }
  }

  security_group_id = aws_security_group.inbound.id
  description       = "Queries over ${each.key}"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = each.value.protocol
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "replies" {
  for_each = toset(["udp", "tcp"])

  security_group_id = aws_security_group.inbound.id
  description       = "Replies over ${each.key}, to every port"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = each.key
  from_port         = 0
  to_port           = 65535
}

resource "aws_route53_resolver_endpoint" "inbound" {
  name               = "${var.name}-inbound"
  direction          = "INBOUND"
  security_group_ids = [aws_security_group.inbound.id]
  protocols          = var.encrypted ? ["Do53", "DoH"] : ["Do53"]
  tags               = var.tags

  # Fixed addresses: they are written in tidegate.toml, and stay the same as long as the endpoint exists.
  dynamic "ip_address" {
    for_each = var.inbound_addresses
    content {
      subnet_id = ip_address.value.subnet_id
      ip        = ip_address.value.ip
    }
  }
}

resource "aws_security_group" "services" {
  name_prefix = "${var.name}-services-"
  description = "HTTPS from the site to interface endpoints"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-services" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "services" {
  for_each = toset(var.client_networks)

  security_group_id = aws_security_group.services.id
  description       = "HTTPS from ${each.key}"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# `private_dns_enabled` is what makes the inbound endpoint answer with these addresses.
resource "aws_vpc_endpoint" "service" {
  for_each = toset(var.services)

  vpc_id              = var.vpc_id
  service_name        = "com.amazonaws.${data.aws_region.current.name}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = var.endpoint_subnet_ids
  security_group_ids  = [aws_security_group.services.id]
  private_dns_enabled = true
  tags                = merge(var.tags, { Name = "${var.name}-${each.key}" })

  # S3 wants a gateway endpoint beside it, unless private DNS is for all traffic and not for the inbound endpoint alone.
  dynamic "dns_options" {
    for_each = each.key == "s3" ? [1] : []
    content {
      private_dns_only_for_inbound_resolver_endpoint = var.s3_gateway_endpoint
    }
  }
}
