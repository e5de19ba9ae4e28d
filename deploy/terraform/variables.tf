variable "name" {
  description = "Beginning of all names."
  type        = string
  default     = "tidegate"
}

variable "vpc_id" {
  description = "The VPC that the site reaches over Direct Connect or a VPN. It needs enableDnsSupport and enableDnsHostnames."
  type        = string
}

variable "inbound_addresses" {
  description = "Addresses of the inbound endpoint, in subnets of at least two Availability Zones."
  type = list(object({
    subnet_id = string
    ip        = string
  }))

  validation {
    condition     = length(var.inbound_addresses) >= 2 && length(var.inbound_addresses) <= 6
    error_message = "An inbound endpoint has two to six addresses."
  }
}

variable "encrypted" {
  description = "Whether the endpoint also speaks DNS over HTTPS."
  type        = bool
  default     = false
}

variable "services" {
  description = "Services that get an interface endpoint, as in com.amazonaws.REGION.SERVICE."
  type        = list(string)
  default     = ["s3", "sts", "monitoring", "logs", "kms", "secretsmanager", "ssm", "ssmmessages", "ec2messages", "ecr.api", "ecr.dkr"]
}

variable "endpoint_subnet_ids" {
  description = "Subnets of the interface endpoints, one an Availability Zone."
  type        = list(string)
}

variable "client_networks" {
  description = "Networks of the site that may use the services."
  type        = list(string)
  default     = ["10.0.0.0/8"]
}

variable "s3_gateway_endpoint" {
  description = "Whether the VPC has a gateway endpoint for S3, which its own instances go on using."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
